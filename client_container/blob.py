"""Blobs: data named by its hash, as jobs, chunks and attempts speak of it, and the proof that one may have it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client_container.failures import BadAnswer
from client_container.fields import a_list, an_object, number, text

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Some bytes that the server has, or is to have."""

    sha256: str  #: in hex
    bytes: int


@dataclass(frozen=True, kw_only=True)
class NamedBlob:
    """A file: a blob, and its name below /in or /out."""

    name: str
    sha256: str
    bytes: int

    @property
    def blob(self) -> Blob:
        """What is in it."""
        return Blob(sha256=self.sha256, bytes=self.bytes)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A claimed chunk, as the proof that this container may have its files and bring those of its answer."""

    chunk: str
    run: int
    token: str
    ticket: str

    @property
    def header(self) -> str:
        """The value of the header Dockercomp-Ticket."""
        return f"{self.chunk} {self.run} {self.token} {self.ticket}"


def is_sha256(value: Any) -> bool:
    """Whether this is a SHA-256 in hex, and so a name that any folder may have."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def blob_from(message: Any, what: str) -> Blob:
    """Read a blob; raises BadAnswer."""
    fields = an_object(message, what)
    return Blob(sha256=_sha256(fields), bytes=int(number(fields, "bytes", above=-1)))


def named_blobs(fields: Mapping[str, Any], name: str) -> tuple[NamedBlob, ...]:
    """Read a list of files, empty when the field is absent; raises BadAnswer. Their names are anybody's."""
    files = [an_object(one, "a file") for one in a_list(fields.get(name) or [], name)]
    return tuple(NamedBlob(name=text(one, "name"), **vars(blob_from(one, "a file"))) for one in files)


def _sha256(fields: Mapping[str, Any]) -> str:
    value = text(fields, "sha256")
    if not is_sha256(value):
        raise BadAnswer("In the server's answer 'sha256' is not a hash in hex.")
    return value
