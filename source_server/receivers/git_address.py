"""Where git may fetch from: addresses that the operator listed, written in one strict form that hides nothing."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from source_server.domain.public_address import may_call
from source_server.domain.refusal import BadInput, NotAllowed, Unavailable

ANY_HOST = "https://*/"  #: the entry of the operator's list that stands for every public address
_ADDRESS = re.compile(
    r"(?P<scheme>https|http|ssh|file)://"
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]|)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~+@-]+)*/?)"
)
_PORTS = {"https": 443, "http": 80, "ssh": 22, "file": 0}

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Address:
    """A repository's address."""

    text: str
    scheme: str
    host: str
    port: int
    path: str
    pinned: str | None = None  #: the only address of the host that may be used

    @property
    def file(self) -> Path | None:
        """The folder that it means, for file://."""
        return Path(self.path) if self.scheme == "file" else None


def parse(text: str) -> Address:
    """The address in its parts. Raises BadInput for whatever git might read as something else."""
    found = _ADDRESS.fullmatch(text) if len(text) <= 500 else None
    if found is None:
        raise BadInput(
            "A repository's address is https://HOST/PATH, ssh://USER@HOST/PATH or file:///PATH, in plain letters: "
            "no password, no query, no escapes."
        )
    scheme, host, path = found["scheme"], found["host"], found["path"]
    if (scheme == "file") != (not host) or (scheme == "file" and (found["port"] or found["user"])):
        raise BadInput("An address names a host, but for file:///PATH, which names none.")
    if found["user"] and scheme != "ssh":
        raise BadInput(
            "An address holds no user and no password: what the server may read is the operator's to say."
        )
    if not path.strip("/") or any(part in (".", "..") for part in path.split("/")):
        raise BadInput("An address ends in the path of a repository, without '.' and '..'.")
    port = int(found["port"] or _PORTS[scheme])
    return Address(text=text, scheme=scheme, host=host.strip("[]").lower(), port=port, path=path)


def allowed(text: str, listed: Sequence[str], *, resolve: Resolve | None = None) -> Address:
    """The address, which the operator's list must cover; a host that no entry names must be a public one.

    Raises BadInput, NotAllowed, and Unavailable when the host's name cannot be looked up now.
    """
    address = parse(text)
    if any(_covers(entry, address) for entry in listed if entry != ANY_HOST):
        return address
    if ANY_HOST in listed and address.scheme == "https":
        return Address(**{**vars(address), "pinned": _public(address, resolve or _look_up)})
    if not listed:
        raise NotAllowed(
            "This server fetches from nowhere: its operator sets DOCKERCOMP_GIT_FROM to allow addresses."
        )
    raise NotAllowed(f"This server does not fetch from {text}: its operator allows {', '.join(listed)}.")


def _covers(entry: str, address: Address) -> bool:
    prefix = entry.rstrip("/")
    if not (address.text == prefix or address.text.startswith(prefix + "/")):
        return False
    if address.file is None:
        return True
    # A link in an allowed folder must not lead out of it.
    return address.file.resolve().is_relative_to(Path(prefix.removeprefix("file://") or "/").resolve())


def _public(address: Address, resolve: Resolve) -> str:
    try:
        found = resolve(address.host, address.port)
    except OSError as error:
        raise Unavailable(f"The name {address.host} cannot be looked up now.") from error
    for one in found:
        if not may_call(ipaddress.ip_address(one.partition("%")[0])):
            raise NotAllowed(
                f"{address.host} is a private address ({one}): the operator has to list it by its name."
            )
    if not found:
        raise Unavailable(f"The name {address.host} cannot be looked up now.")
    return found[0]


def _look_up(host: str, port: int) -> list[str]:
    return [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
