"""One execution of a chunk by one container: what it said, and what is kept of it for good."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Outcome(str, Enum):
    """How an attempt ended; all but OK are kept as errors."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    ENGINE = "engine"


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


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who gave an attempt: the container that showed its key, its host and its account."""

    container: str
    host: str
    account: str


def digest(attempt: Attempt) -> str:
    """SHA-256 of the answer, or of all that tells one failure from another, as hex."""
    if attempt.outcome is Outcome.OK:
        return hashlib.sha256(attempt.stdout.encode()).hexdigest()
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


def stored_id(attempt: Attempt) -> str:
    """The id under which an attempt is stored: the same attempt sent again is the same document."""
    named = "\n".join((attempt.chunk, str(attempt.run), attempt.ticket, digest(attempt)))
    return hashlib.sha256(named.encode()).hexdigest()[:40]


_MASKS = (
    (re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b"), "HEX"),
    (re.compile(r"(?:/[^\s/:'\"]+){2,}"), "PATH"),
    (re.compile(r"\d+(?:\.\d+)?"), "N"),
)


def signature(attempt: Attempt) -> str:
    """A short text that is alike for alike failures: kind, exit, and the last line of stderr with values masked."""
    lines = [line.strip() for line in attempt.stderr_tail.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    for pattern, mask in _MASKS:
        last = pattern.sub(mask, last)
    how = f"signal {attempt.signal}" if attempt.signal is not None else f"exit {attempt.exit_code}"
    return f"{attempt.outcome.value}, {how}: {last[:200]}"
