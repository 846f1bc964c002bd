"""Tags become digests where the scientist submits: the engine here, a registry, or a sentence."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pydantic import TypeAdapter, ValidationError
from registries import Registry, docker, registry
from release_parts import tar

from dockercomp.images import ImageUnknown, Pinned, parse, resolve
from source_server.web.job_body import JobImage

__all__ = ["registry"]

IMAGE = "sha256:" + "5f" * 32
LABEL = "dockercomp.test=O"


def is_taken_by_the_server(image: str) -> bool:
    with contextlib.suppress(ValidationError):
        return bool(TypeAdapter(JobImage).validate_python(image) == image)
    return False


# --- names


@pytest.mark.parametrize(
    ("reference", "repository", "tag"),
    [
        ("python", "docker.io/library/python", "latest"),
        ("python:3.12", "docker.io/library/python", "3.12"),
        ("ada/fits:1", "docker.io/ada/fits", "1"),
        ("docker.io/python", "docker.io/library/python", "latest"),
        ("index.docker.io/ada/fits", "docker.io/ada/fits", "latest"),
        ("ghcr.io/ada/deep/fits:v1.2", "ghcr.io/ada/deep/fits", "v1.2"),
        ("localhost/fits", "localhost/fits", "latest"),
        ("localhost:5000/fits:x", "localhost:5000/fits", "x"),
        ("registry:5000/fits", "registry:5000/fits", "latest"),
    ],
)
def test_names_are_read_as_docker_reads_them(reference: str, repository: str, tag: str) -> None:
    parsed = parse(reference)

    assert (parsed.repository, parsed.tag, parsed.digest) == (repository, tag, None)
    assert is_taken_by_the_server(f"{parsed.repository}@{IMAGE}")


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "Python",
        "a b",
        "fits:",
        "fits:a b",
        "fits@sha256:12",
        "fits@md5:" + "0" * 32,
        "-x",
        "../x",
        "a//b",
    ],
)
def test_what_is_no_name_is_refused_with_a_sentence(reference: str) -> None:
    with pytest.raises(ImageUnknown, match="is no image's name"):
        resolve(reference)


def test_what_is_pinned_stays_as_it_is() -> None:
    assert resolve(IMAGE) == Pinned(image=IMAGE)
    assert resolve(f"ghcr.io/ada/fits@{IMAGE}") == Pinned(image=f"ghcr.io/ada/fits@{IMAGE}")
    assert resolve(f"python:3.12@{IMAGE}") == Pinned(image=f"docker.io/library/python@{IMAGE}")


# --- the engine of this machine


@pytest.fixture
def make_image() -> Iterator[Callable[[str], str]]:
    """Makes an image with that tag; its id."""
    made: list[str] = []

    def make(tag: str) -> str:
        content = tar({"data": secrets.token_bytes(1000), "job": b"\x7fELF"})
        made.append(docker("import", "--change", f"LABEL {LABEL}", "-", tag, stdin=content))
        return made[-1]

    yield make
    for image in made:
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True)


@pytest.mark.docker
def test_a_tag_of_this_machine_is_its_id_and_says_how_machines_get_it(make_image: Any) -> None:
    image = make_image("dockercomp-test/tags:1.4")

    pinned = resolve("dockercomp-test/tags:1.4")

    assert pinned.image == image and is_taken_by_the_server(image)
    assert "docker save dockercomp-test/tags:1.4 | dockercomp-server image add -" in (pinned.hint or "")


@pytest.mark.docker
def test_a_tag_that_was_pushed_is_the_digest_in_its_registry(make_image: Any, registry: Registry) -> None:
    name = f"{registry.name}/fits"
    make_image(f"{name}:1")
    docker("push", "--quiet", f"{name}:1")
    registry.close()  # the engine knows: nobody has to be asked

    pinned = resolve(f"{name}:1")

    assert re.fullmatch(rf"{re.escape(name)}@sha256:[0-9a-f]{{64}}", pinned.image) and pinned.hint is None
    assert is_taken_by_the_server(pinned.image)


# --- registries


@pytest.mark.docker
def test_a_tag_is_looked_up_in_its_registry(make_image: Any, registry: Registry) -> None:
    reference = registry.push(make_image("dockercomp-test/tags:2"))

    pinned = resolve(f"{registry.name}/fits:1")

    assert pinned == Pinned(image=reference)


@pytest.mark.docker
def test_an_image_for_several_architectures_is_the_digest_of_its_index(
    make_image: Any, registry: Registry
) -> None:
    import requests

    single = registry.push(make_image("dockercomp-test/tags:3")).rpartition("@")[2]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    api = f"http://{registry.name}/v2/fits/manifests"
    size = len(requests.get(f"{api}/{single}", headers={"Accept": kind}, timeout=30).content)
    listed = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [
            {
                "mediaType": kind,
                "digest": single,
                "size": size,
                "platform": {"os": "linux", "architecture": "amd64"},
            }
        ],
    }
    body = json.dumps(listed).encode()
    put = requests.put(
        f"{api}/many", data=body, headers={"Content-Type": str(listed["mediaType"])}, timeout=30
    )
    assert put.status_code == 201, put.text

    pinned = resolve(f"{registry.name}/fits:many")

    assert pinned.image == f"{registry.name}/fits@sha256:{hashlib.sha256(body).hexdigest()}"


def test_what_the_registry_has_not_is_a_sentence(registry: Registry) -> None:
    with pytest.raises(ImageUnknown, match=r"has no image nothing:1 for anybody \(it answered 404\)"):
        resolve(f"{registry.name}/nothing:1")


def test_a_registry_that_does_not_answer_is_a_sentence() -> None:
    with pytest.raises(ImageUnknown, match="does not answer; name the image by its digest"):
        resolve("127.0.0.1:9/fits:1")


class TokenServer:
    """Gives tokens for pulling to anybody, as public registries do; and notes who came."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _certificate(self.key)
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.seen: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                outer.seen.append({"query": asked, "key": self.headers.get("Authorization")})
                body = json.dumps({"token": outer.token(asked["scope"][0])}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/token"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def auth(self) -> str:
        """For the registry's configuration."""
        return (
            f"auth: {{token: {{realm: '{self.address}', service: tests, issuer: tests, "
            f"rootcertbundle: {self.bundle}}}}}\n"
        )

    def token(self, scope: str) -> str:
        kind, name, actions = scope.split(":")
        now = int(datetime.datetime.now(datetime.timezone.utc).timestamp())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "tests",
            "sub": "",
            "aud": "tests",
            "exp": now + 300,
            "nbf": now - 300,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        signed = ".".join(_letters(json.dumps(part).encode()) for part in (header, claims))
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_letters(signature)}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def _letters(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.docker
def test_a_registry_that_wants_a_token_is_asked_as_anybody(
    make_image: Any, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = registry.push(make_image("dockercomp-test/tags:4"))
    registry.close()
    tokens = TokenServer(tmp_path)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password hers\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / ".netrc"))
    guarded = Registry(tmp_path, auth=tokens.auth())
    try:
        pinned = resolve(f"{guarded.name}/fits:1")
    finally:
        guarded.close()
        tokens.close()

    assert pinned.image.rpartition("@")[2] == reference.rpartition("@")[2]
    [seen] = tokens.seen
    assert seen["query"] == {"scope": ["repository:fits:pull"], "service": ["tests"]}
    assert seen["key"] is None, "a password of the machine's owner is none of a registry's business"


def test_no_registry_sends_us_elsewhere_without_https(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Bearer realm="http://registry.example/token"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with pytest.raises(ImageUnknown, match=r"would have registry\.example asked without https"):
            resolve(f"127.0.0.1:{http.server_port}/fits:1")
        http.shutdown()
