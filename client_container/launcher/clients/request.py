"""What `up` was asked for, checked before anything is touched."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from client_container.launcher.clients.plan import Plan
from client_container.launcher.errors import BadRequest
from client_container.launcher.state import Host
from client_container.machine import machine_labels, without_gpus

LEAST_MEMORY = 32 * 2**20  #: bytes; below it no Python starts
LONGEST_KEY = 4096  #: bytes
_SIZE = re.compile(r"([1-9][0-9]{0,15})([kmgt]?)b?", re.IGNORECASE | re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `up` that decide what runs."""

    server: str
    key_file: Path
    containers: int
    image: str
    cpus: float
    memory: str
    add_host: tuple[str, ...]
    host_name: str | None

    def arguments(self) -> list[str]:
        """The same request as a command line. The key is not on it, only the name of its file."""
        named = {
            "--server": self.server,
            "--key-file": str(self.key_file.absolute()),
            "--containers": str(self.containers),
            "--image": self.image,
            "--cpus": str(self.cpus),
            "--memory": self.memory,
        }
        if self.host_name:
            named["--host-name"] = self.host_name
        return [
            f"{name}={value}"
            for name, value in [*named.items(), *(("--add-host", one) for one in self.add_host)]
        ]

    def plan(self, *, instance: str, host: Host, image_id: str, key: bytes, processors: int) -> Plan:
        """The plan for all containers of this request; raises BadRequest."""
        if self.cpus > processors:
            raise BadRequest(
                f"--cpus {self.cpus:g} is more than the {processors} processors of this machine."
            )
        return Plan(
            instance=instance,
            host_id=host.id,
            host_name=self.host_name or None,
            server=checked_server(self.server),
            key_digest=hashlib.sha256(key).hexdigest(),
            image=image_id,
            cpus=self.cpus,
            memory=parse_memory(self.memory),
            extra_hosts=tuple(checked_extra_host(one) for one in self.add_host),
            first_uid=host.first_uid,
            facts=without_gpus(machine_labels()),  # such a container is given no devices
        )


def read_key(path: Path) -> bytes:
    """The account key in a file, one line of it; raises BadRequest."""
    try:
        with path.open("rb") as file:
            key = file.read(LONGEST_KEY + 1).strip()
    except OSError as error:
        raise BadRequest(f"The key file {path} cannot be read: {error.strerror}.") from error
    if not key or len(key) > LONGEST_KEY or len(key.split()) != 1 or not key.isascii():
        raise BadRequest(f"The key file {path} must hold one account key and nothing else.")
    return key + b"\n"


def checked_server(url: str) -> str:
    """The URL itself, if a container can use it; raises BadRequest."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        usable = False
    if (
        not usable
        or len(url.split()) != 1
        or not url.isprintable()
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise BadRequest(f"--server must be like http://server.example:8765, not {url!r}.")
    if is_loopback(host):
        raise BadRequest(
            f"--server {url} is, from inside a container, that container itself: give the bridge's gateway "
            "address (docker network inspect bridge) or a name with --add-host NAME:host-gateway."
        )
    return url


def is_loopback(host: str) -> bool:
    """Whether a host name or address means the very machine that uses it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def checked_extra_host(text: str) -> str:
    """NAME:ADDRESS itself, if it is that; raises BadRequest."""
    name, _, address = text.partition(":")
    if _HOST_NAME.fullmatch(name):
        if address == "host-gateway":
            return text
        try:
            ipaddress.ip_address(address)
        except ValueError:
            pass
        else:
            return text
    raise BadRequest(f"--add-host must be NAME:ADDRESS or NAME:host-gateway, not {text!r}.")


def parse_memory(text: str) -> int:
    """Bytes, from 512m or 2g; raises BadRequest."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadRequest(f"--memory must be like 512m or 2g, not {text!r}.")
    power = " kmgt".index(match[2].lower() or " ")
    size: int = int(match[1]) * 1024**power
    if size < LEAST_MEMORY:
        raise BadRequest(f"--memory {text} is less than a client needs (32m).")
    if size >= 2**62:
        raise BadRequest(f"--memory {text} is more than any machine has.")
    return size
