"""Jobs as they are shown, and remembered, to the volunteer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One job that ended, for the volunteer's history."""

    slot: int
    project: str
    task: str
    chunk: str
    image: str  #: id
    started: datetime
    ended: datetime
    ran_s: float  #: frozen time excluded
    cpu_s: float
    cause: str | None  #: as on the wire; None when the program ended by itself
    exit_code: int | None
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, kw_only=True)
class Running:
    """One job that runs."""

    slot: int
    project: str
    task: str
    chunk: str
    image: str  #: id
    since: datetime
    frozen: bool  #: confirmed by the engine
    progress: float | None  #: 0..1, as the program says; None when it does not
