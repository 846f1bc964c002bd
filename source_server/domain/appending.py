"""Rows on their way into an open-ended task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Appending:
    """What one request adds: written down on the task first, so that any process can carry it out."""

    key: str  #: chosen by who adds: the same key again adds nothing
    n: int  #: number of the first chunk
    texts: tuple[str, ...]  #: JSON text of each row, one a chunk
    fields: tuple[str, ...]  #: names of all fields of the task from then on


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What a request has added."""

    key: str
    n: int
    count: int
