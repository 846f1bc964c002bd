"""Images are named by what is in them: a tag is looked up once, where the scientist submits, and never again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from dockercomp.failures import DockercompError

DEFAULT_REGISTRY = "docker.io"
ENDPOINTS = {"docker.io": "registry-1.docker.io"}  #: whose API has an address of its own
MOST_BYTES = 4 * 1024 * 1024  #: of a manifest, as registries have it
PATIENCE_S = (5.0, 30.0)
ENGINE_PATIENCE_S = 10.0

KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_ID = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_REGISTRY = re.compile(r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LOCAL = ("localhost", "127.0.0.1")


class ImageUnknown(DockercompError):
    """An image that cannot be found by that name; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What a reference stands for at this moment."""

    image: str  #: sha256:ID, or REGISTRY/NAME@sha256:DIGEST
    hint: str | None = None  #: what has to be done before a volunteer's machine can fetch it


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image's name, taken apart."""

    registry: str
    name: str
    tag: str
    digest: str | None

    @property
    def repository(self) -> str:
        """The name with the registry that it is in."""
        return f"{self.registry}/{self.name}"


def resolve(reference: str) -> Pinned:
    """What the reference stands for; raises ImageUnknown.

    An id or a digest stays; a tag is looked up in the Docker engine of this machine, if there is one, and else in the
    registry that it names, as anybody.
    """
    if _ID.fullmatch(reference):
        return Pinned(image=reference)
    parsed = parse(reference)
    if parsed.digest is not None:
        return Pinned(image=f"{parsed.repository}@{parsed.digest}")
    return _local(reference, parsed) or Pinned(image=f"{parsed.repository}@{_digest(parsed)}")


def parse(reference: str) -> Reference:
    """Take a reference apart, as Docker does: no registry is Docker's own, no tag is `latest`."""
    rest, _, digest = reference.partition("@")
    first, slash, behind = rest.partition("/")
    registry, path = (
        (first, behind) if slash and ("." in first or ":" in first or first == "localhost") else ("", rest)
    )
    path, colon, tag = path.partition(":")
    tag = tag if colon else "latest"
    if registry in ("", "index.docker.io"):
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and path and "/" not in path:
        path = f"library/{path}"
    sound = _REGISTRY.fullmatch(registry) and _NAME.fullmatch(path) and _TAG.fullmatch(tag)
    if not sound or ("@" in reference and not _ID.fullmatch(digest)):
        raise ImageUnknown(
            f"{reference!r} is no image's name: write NAME:TAG, REGISTRY/NAME:TAG, REGISTRY/NAME@sha256:... or an id."
        )
    return Reference(registry=registry, name=path, tag=tag, digest=digest or None)


# --- this machine's engine


def _local(reference: str, parsed: Reference) -> Pinned | None:
    """What the engine of this machine knows by that name; None when there is no engine, or no such image."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    try:
        asked = subprocess.run(
            [docker, "image", "inspect", "--", reference],
            capture_output=True,
            timeout=ENGINE_PATIENCE_S,
            check=False,
        )
        [found] = json.loads(asked.stdout) if asked.returncode == 0 else [None]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return None if found is None else _of_engine(reference, parsed, found)


def _of_engine(reference: str, parsed: Reference, found: Mapping[str, Any]) -> Pinned:
    for known in found.get("RepoDigests") or ():
        one = parse(known)
        if one.repository == parsed.repository:
            return Pinned(image=f"{one.repository}@{one.digest}")
    return Pinned(
        image=found["Id"],
        hint=f"{reference} is known to this machine only: machines fetch it from the source server, once its operator "
        f"has run: docker save {reference} | dockercomp-server image add -",
    )


# --- registries


def _digest(asked: Reference) -> str:
    """The digest of what the tag names now, in the registry: of an index, where it is for several architectures."""
    address = f"{_endpoint(asked.registry)}/v2/{asked.name}/manifests/{asked.tag}"
    with requests.Session() as http:
        answer = _get(http, asked, address, {})
        if answer.status_code == requests.codes.unauthorized:
            token = _token(http, asked, answer.headers.get("WWW-Authenticate", ""))
            answer = _get(http, asked, address, {"Authorization": f"Bearer {token}"})
        if answer.status_code != requests.codes.ok:
            raise ImageUnknown(_not_there(asked, answer.status_code))
        digest = f"sha256:{hashlib.sha256(_body(asked, answer)).hexdigest()}"
    told = answer.headers.get("Docker-Content-Digest", digest)
    if told.startswith("sha256:") and told != digest:
        raise ImageUnknown(f"The registry {asked.registry} says {told} and sends {digest}: try again.")
    return digest


def _endpoint(registry: str) -> str:
    host = registry.partition(":")[0]
    scheme = "http" if host in _LOCAL else "https"
    return f"{scheme}://{ENDPOINTS.get(registry, registry)}"


def _get(
    http: requests.Session, asked: Reference, address: str, headers: Mapping[str, str]
) -> requests.Response:
    _require_private(asked, address)
    try:
        # As anybody: the key of a .netrc is none of a registry's business.
        answer = http.get(
            address,
            headers={"Accept": ", ".join(KINDS), **headers},
            timeout=PATIENCE_S,
            auth=lambda request: request,
            stream=True,
        )
    except requests.exceptions.SSLError as error:
        raise ImageUnknown(
            f"The registry {asked.registry} does not prove over https who it is; without https only one on this "
            "machine (localhost) is asked. Name the image by its digest, or by its id."
        ) from error
    except requests.TooManyRedirects as error:
        raise ImageUnknown(f"The registry {asked.registry} only ever points elsewhere: try again.") from error
    except requests.RequestException as error:
        raise ImageUnknown(
            f"The registry {asked.registry} does not answer; name the image by its digest, or by its id."
        ) from error
    for one in (*answer.history, answer):
        _require_private(asked, one.url)
    return answer


def _require_private(asked: Reference, address: str) -> None:
    place = urlsplit(address)
    if place.scheme != "https" and place.hostname not in _LOCAL:
        raise ImageUnknown(f"The registry {asked.registry} would have {place.hostname} asked without https.")


def _token(http: requests.Session, asked: Reference, challenge: str) -> str:
    """A token that the registry gives to anybody."""
    said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in said:
        raise ImageUnknown(_not_there(asked, requests.codes.unauthorized))
    query = {"scope": said.get("scope") or f"repository:{asked.name}:pull"}
    if "service" in said:
        query["service"] = said["service"]
    address = requests.Request("GET", said["realm"], params=query).prepare().url or ""
    answer = _get(http, asked, address, {})
    try:
        given = json.loads(_body(asked, answer))
        return str(given.get("token") or given["access_token"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageUnknown(_not_there(asked, answer.status_code)) from error


def _body(asked: Reference, answer: requests.Response) -> bytes:
    body = b""
    try:
        for piece in answer.iter_content(64 * 1024):
            body += piece
            if len(body) > MOST_BYTES:
                raise ImageUnknown(f"The registry {asked.registry} answers with more than a manifest.")
    except requests.RequestException as error:
        raise ImageUnknown(f"The registry {asked.registry} broke off its answer: try again.") from error
    return body


def _not_there(asked: Reference, status: int) -> str:
    image = f"{asked.name}:{asked.tag}"
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        return (
            f"The registry {asked.registry} has no image {image}, or only for those who log in (it answered {status}). "
            "Machines fetch images as anybody: name the id of an image of this machine, which the source server's "
            "operator adds there."
        )
    if status == requests.codes.too_many_requests or status >= requests.codes.internal_server_error:
        return (
            f"The registry {asked.registry} does not say now what {image} is (it answered {status}): try again later, "
            "or name the image by its digest."
        )
    return (
        f"The registry {asked.registry} has no image {image} for anybody (it answered {status}); "
        "name it by its digest, or by the id of an image of this machine."
    )
