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
from collections.abc import Callable, Iterator
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
from web_servers import Quiet, WebServer, serving

from dockercomp.images import ImageUnknown, Pinned, parse, resolve
from source_server.web.bodies.job import JobImage

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


def test_a_registry_that_wants_a_password_is_not_given_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.close()
    (tmp_path / "passwords").write_text("ada:$2y$05$" + "a" * 53 + "\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password hers\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / ".netrc"))
    guarded = Registry(
        tmp_path, auth=f"auth: {{htpasswd: {{realm: tests, path: {tmp_path / 'passwords'}}}}}\n"
    )
    try:
        with pytest.raises(ImageUnknown, match=r"or only for those who log in \(it answered 401\)"):
            resolve(f"{guarded.name}/fits:1")
    finally:
        guarded.close()


def test_a_registry_elsewhere_is_asked_over_https_only(registry: Registry, tmp_path: Path) -> None:
    registry.close()
    # An address that is not what this machine calls itself. It does not speak https.
    elsewhere = Registry(tmp_path, host="127.0.0.2")
    try:
        with pytest.raises(ImageUnknown, match="does not prove over https who it is"):
            resolve(f"{elsewhere.name}/fits:1")
    finally:
        elsewhere.close()


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Iterator[str]:
    """A registry that answers everything so; its name."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.answer(status, body, headers)

    with serving(Handler) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (429, r"does not say now what fits:1 is \(it answered 429\): try again later"),
        (503, r"does not say now what fits:1 is \(it answered 503\): try again later"),
        (403, "only for those who log in"),
        (404, "has no image fits:1 for anybody"),
    ],
)
def test_what_a_registry_answers_is_told_as_what_it_is(status: int, says: str) -> None:
    with answering(status) as name, pytest.raises(ImageUnknown, match=says):
        resolve(f"{name}/fits:1")


def test_where_a_registry_points_to_another_that_one_says_what_the_tag_is() -> None:
    manifest = json.dumps({"schemaVersion": 2}).encode()
    with (
        answering(200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, manifest) as other,
        answering(307, {"Location": f"http://{other}/v2/fits/manifests/1"}) as name,
    ):
        pinned = resolve(f"{name}/fits:1")

    assert pinned.image == f"{name}/fits@sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_a_registry_that_points_to_itself_is_given_up() -> None:
    loop = {"Location": "/v2/fits/manifests/1"}
    with answering(307, loop) as name, pytest.raises(ImageUnknown, match="only ever points elsewhere"):
        resolve(f"{name}/fits:1")


def test_a_digest_that_is_not_that_of_what_came_is_refused() -> None:
    lie = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    with answering(200, lie, b"{}") as name, pytest.raises(ImageUnknown, match="try again"):
        resolve(f"{name}/fits:1")


class TokenServer:
    """Gives tokens for pulling to anybody, as public registries do; and notes who came."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _certificate(self.key)
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.seen: list[dict[str, Any]] = []
        outer = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                outer.seen.append({"query": asked, "key": self.headers.get("Authorization")})
                self.answer(200, json.dumps({"token": outer.token(asked["scope"][0])}).encode())

        server = WebServer(Handler)
        self.address, self.close = f"{server.url}/token", server.close

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
    header = {"WWW-Authenticate": 'Bearer realm="http://registry.example/token"'}
    asked = pytest.raises(ImageUnknown, match=r"would have registry\.example asked without https")

    with answering(401, header) as name, asked:
        resolve(f"{name}/fits:1")
