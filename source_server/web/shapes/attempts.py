"""The shapes of answers about attempts, and about why a chunk is where it is."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from source_server.web.shapes.base import Instant, Said


class PastAttempt(Said):
    """An attempt at a chunk, as it is remembered."""

    id: str
    run: int
    outcome: str
    verdict: str
    exit_code: int | None
    signature: str | None
    account: str | None
    host: str | None
    container: str | None
    stored: Instant


class Attempt(Said):
    """An attempt at a chunk: what it said, how it ended, who made it."""

    id: str
    chunk: str
    run: int
    outcome: str
    timeout: bool
    oom: bool
    verdict: str
    exit_code: int | None
    signal: int | None
    stdout: str | None = Field(description="At most 4,096 letters; null where it equals the accepted answer.")
    stdout_cut: bool
    stderr_tail: str
    signature: str | None
    files: list[dict[str, Any]]
    started: Instant
    ended: Instant
    stored: Instant
    cpu_s: float | None
    account: str | None
    host: str | None
    container: str | None
    runtime: str | None
    image: str | None
    variant: str | None


class Attempts(Said):
    """A page of attempts, newest first."""

    attempts: list[Attempt]
    next: str | None = Field(description="`after` of the next page; null: that was all.")


class Why(Said):
    """Why a chunk is not running, or what became of it, in words."""

    chunk: str
    state: str
    summary: str
    reasons: list[str]
    next: str | None
    attempts: list[PastAttempt]
