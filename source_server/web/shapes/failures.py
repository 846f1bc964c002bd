"""The shapes of answers about failed attempts."""

from __future__ import annotations

from source_server.web.shapes.base import Instant, Said


class Failure(Said):
    """A failed attempt."""

    id: str
    chunk: str
    run: int
    task: str
    project: str
    container: str | None
    host: str | None
    runtime: str | None
    image: str | None
    cpu_s: float | None
    outcome: str
    account: str | None
    exit_code: int | None
    signal: int | None
    signature: str
    stderr_tail: str
    stdout_tail: str
    duration_s: float | None
    started: Instant
    ended: Instant
    stored: Instant
    verdict: str
    candidates: list[str]


class Failures(Said):
    """Failed attempts, oldest first."""

    errors: list[Failure]


class FailureGroup(Said):
    """Alike failures, counted, with the first of them."""

    task: str
    signature: str
    count: int
    chunks: int
    quarantined: int
    hosts: int
    accounts: int
    first: Instant
    last: Instant
    sample: Failure | None


class FailureGroups(Said):
    """Groups of alike failures, the most frequent first."""

    groups: list[FailureGroup]
    total: int


class Sent(Said):
    """How many chunks were sent out again so far."""

    sent: int
    done: bool
