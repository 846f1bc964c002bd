"""What is asked of a registry before an image is pulled: whether it may be asked at all, and how large the image is.

Only registries that the volunteer listed are asked, and none with a private address unless that is allowed too: a
job's image must not be a way to reach the volunteer's own network.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from client_container.launcher.line.wire import Refusal
from client_container.launcher.policy.policy import Policy

MOST_MANIFEST = 4 * 2**20
TIMEOUT_S = (10.0, 30.0)
CERTIFICATES = Path("/etc/docker/certs.d")  #: where the engine looks for a registry's own authority

DOCKER_HUB = "docker.io"
_ADDRESS_OF_HUB = "registry-1.docker.io"

_LISTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SINGLE = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

Addresses = list[ipaddress.IPv4Address | ipaddress.IPv6Address]
Resolve = Callable[[str, int], Addresses]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image in a registry, by digest."""

    registry: str  #: host[:port]
    path: str
    digest: str  #: sha256:...

    @property
    def repository(self) -> str:
        """As the engine is told."""
        return f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


def parse_reference(text: str) -> Reference:
    """Read [REGISTRY/]PATH[:TAG]@sha256:DIGEST; the digest decides, a tag is dropped. Raises Refusal."""
    name, at, digest = text.rpartition("@")
    name = re.sub(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", "", name) if "/" in name or ":" in name else name
    if not at or not name or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Refusal("bad_request", "An image of a registry is named as NAME@sha256:....")
    first, slash, rest = name.partition("/")
    # The engine's own rule: only what looks like a host is one.
    if slash and ("." in first or ":" in first or first == "localhost"):
        return Reference(registry=first, path=rest, digest=digest)
    return Reference(registry=DOCKER_HUB, path=name if slash else f"library/{name}", digest=digest)


def resolve(host: str, port: int) -> Addresses:
    """All addresses of a host; empty when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]


class Registries:
    """Asks registries, as far as the policy lets."""

    def __init__(self, policy: Policy, *, find_addresses: Resolve = resolve) -> None:
        self._policy, self._resolve = policy, find_addresses

    def require_allowed(self, reference: Reference) -> None:
        """Raises Refusal unless the volunteer listed the registry, and its addresses are public or may be private."""
        if reference.registry not in self._policy.registries:
            listed = ", ".join(self._policy.registries) or "no registry at all"
            raise Refusal(
                "not_allowed",
                f"This host takes images from {listed}, not from {reference.registry}.",
            )
        self._require_public(_split(reference.registry)[0], _split(reference.registry)[1])

    def compressed_size(self, reference: Reference, platform: tuple[str, str]) -> int:
        """Bytes of config and layers, as the manifest has them, for (os, architecture). Raises Refusal."""
        manifest = self._manifest(reference, reference.digest)
        if isinstance(manifest.get("manifests"), list):
            manifest = self._manifest(reference, _chosen(manifest["manifests"], platform))
        parts = [manifest.get("config"), *(manifest.get("layers") or ())]
        sizes = [one.get("size") if isinstance(one, dict) else None for one in parts]
        if not all(isinstance(size, int) and 0 <= size < 2**53 for size in sizes):
            raise Refusal("engine", f"The registry {reference.registry} has a manifest without sizes.")
        return sum(size for size in sizes if isinstance(size, int))

    def _manifest(self, reference: Reference, digest: str) -> dict[str, Any]:
        host, port = _split(reference.registry)
        url = f"{self._scheme(host, port)}://{_netloc(reference.registry)}/v2/{reference.path}/manifests/{digest}"
        body = self._get(url, reference)
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise Refusal("engine", f"The registry {reference.registry} answered with another manifest.")
        try:
            manifest = json.loads(body)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise Refusal("engine", f"The registry {reference.registry} answered with no manifest.")
        return manifest

    def _get(self, url: str, reference: Reference) -> bytes:
        own = CERTIFICATES / reference.registry / "ca.crt"
        with requests.Session() as session:
            session.verify = str(own) if own.is_file() else True
            session.headers["Accept"] = ", ".join((*_LISTS, *_SINGLE))
            try:
                status, headers, body = _fetch(session, url)
                if status == 401:
                    token = self._token(session, headers.get("WWW-Authenticate", ""), reference)
                    status, _, body = _fetch(session, url, token)
            except requests.RequestException as error:
                raise Refusal(
                    "engine",
                    f"The registry {reference.registry} does not answer ({type(error).__name__}).",
                ) from error
        if status == 404:
            raise Refusal("image_missing", f"The registry {reference.registry} does not have this image.")
        if status != 200:
            raise Refusal("engine", f"The registry {reference.registry} answered {status}.")
        return body

    def _token(self, session: requests.Session, challenge: str, reference: Reference) -> str:
        """A token for anybody, from where the registry says."""
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        place = urlsplit(said.get("realm", ""))
        if not challenge.lower().startswith("bearer ") or place.scheme != "https" or not place.hostname:
            raise Refusal("not_allowed", f"The registry {reference.registry} asks for a password.")
        self._require_public(place.hostname, place.port or 443)
        query = {"service": said.get("service", ""), "scope": f"repository:{reference.path}:pull"}
        url = requests.Request("GET", said["realm"], params=query).prepare().url or ""
        status, _, body = _fetch(session, url)
        try:
            answer = json.loads(body) if status == 200 else {}
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Refusal("not_allowed", f"The registry {reference.registry} asks for a password.")
        return token

    def _require_public(self, host: str, port: int) -> None:
        found = self._resolve(host, port)
        if not found:
            raise Refusal("engine", f"The registry's host {host} has no address.")
        if not self._policy.private_registries and not all(map(_is_public, found)):
            raise Refusal(
                "not_allowed", f"The registry's host {host} has a private address, which is not allowed here."
            )

    def _scheme(self, host: str, port: int) -> str:
        # As the engine does it: without TLS on this machine's own addresses alone.
        addresses = self._resolve(host, port)
        return "http" if addresses and all(one.is_loopback for one in addresses) else "https"


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return _is_public(mapped)
    return address.is_global and not address.is_multicast


def _chosen(manifests: list[Any], platform: tuple[str, str]) -> str:
    for one in manifests:
        runs_on = one.get("platform") if isinstance(one, dict) else None
        if isinstance(runs_on, dict) and (runs_on.get("os"), runs_on.get("architecture")) == platform:
            return str(one.get("digest"))
    raise Refusal("not_allowed", f"The image does not exist for {'/'.join(platform)}.")


def _fetch(session: requests.Session, url: str, token: str | None = None) -> tuple[int, Any, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with session.get(url, headers=headers, timeout=TIMEOUT_S, stream=True, allow_redirects=False) as answer:
        body = b""
        for piece in answer.iter_content(64 * 1024):
            body += piece
            if len(body) > MOST_MANIFEST:
                raise requests.RequestException("the answer is too long")
        return answer.status_code, answer.headers, body


def _split(registry: str) -> tuple[str, int]:
    host, _, port = registry.partition(":")
    return (_ADDRESS_OF_HUB if host == DOCKER_HUB else host), int(port or 443)


def _netloc(registry: str) -> str:
    return _ADDRESS_OF_HUB if registry == DOCKER_HUB else registry
