"""One execution of a chunk by one container: what it said, and what is kept of it for good."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from source_server.domain.chunk import ChunkFile

BAD_DATA = 65  #: the exit code by which a program says "this data is bad" (EX_DATAERR of sysexits.h)


class Outcome(str, Enum):
    """How an attempt ended; all but OK are kept as errors."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    ENGINE = "engine"
    DISAGREEMENT = "disagreement"  #: no attempt's own: all that were allowed came, and do not agree


class Verdict(str, Enum):
    """What became of a stored result, or of a stored error (new, counted, stale)."""

    NEW = "new"
    CANDIDATE = "candidate"
    ACCEPTED = "accepted"
    AGREED = "agreed"
    DISAGREED = "disagreed"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"
    COUNTED = "counted"
    STALE = "stale"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a container reports. Times are the client's word; `started` and `ended` are kept, never used."""

    chunk: str
    run: int
    token: str
    ticket: str
    outcome: Outcome
    exit_code: int | None
    signal: int | None
    stdout: str
    stderr_tail: str
    started: datetime
    ended: datetime
    cpu_s: float
    runtime: str
    image: str | None
    files: tuple[ChunkFile, ...] = ()  #: what a good one left in /out and the job keeps


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who gave an attempt: the container that showed its key, its host and its account."""

    container: str
    host: str
    account: str


def digest(attempt: Attempt) -> str:
    """SHA-256 of the answer, or of all that tells one failure from another, as hex."""
    if attempt.outcome is Outcome.OK:
        return hashlib.sha256(_answer(attempt)).hexdigest()
    told = "\n".join(
        (
            attempt.outcome.value,
            str(attempt.exit_code),
            str(attempt.signal),
            attempt.stderr_tail,
            attempt.stdout,
        )
    )
    return hashlib.sha256(told.encode()).hexdigest()


def _answer(attempt: Attempt) -> bytes:
    """What two answers that are the same have in common: their text, and the files that came with it."""
    if not attempt.files:
        return attempt.stdout.encode()
    files = sorted([one.name, one.sha256, one.bytes] for one in attempt.files)
    # No text begins with this byte: an answer without files can never be taken for one with files.
    return b"\xff" + json.dumps([attempt.stdout, files]).encode()


def stored_id(attempt: Attempt) -> str:
    """The id under which an attempt is stored: the same attempt sent again is the same document."""
    named = "\n".join((attempt.chunk, str(attempt.run), attempt.ticket, digest(attempt)))
    return hashlib.sha256(named.encode()).hexdigest()[:40]
