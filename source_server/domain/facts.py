"""What is known about a chunk at one moment, for people who ask why it is not running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from source_server.domain.agreement import identity
from source_server.domain.attempt import Verdict
from source_server.domain.chunk import Candidate, Chunk, Lease
from source_server.domain.project import Project
from source_server.domain.prospects import Prospect
from source_server.domain.task import Task

MANY = 10_000  #: ready chunks are counted up to here


@dataclass(frozen=True, kw_only=True)
class Past:
    """One attempt that ended: its answer or its failure, as stored."""

    id: str
    run: int
    outcome: str  #: ok, or how it failed
    verdict: Verdict
    stored: datetime
    container: str | None = None
    host: str | None = None
    account: str | None = None  #: pseudonym
    exit_code: int | None = None
    signature: str | None = None  #: of a failure
    suspect: bool = False  #: accepted unchecked, from a host that has lost our trust since


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What goes before a ready chunk, in numbers of ready chunks (up to 10,000)."""

    projects_ahead: int = 0  #: of projects with a higher priority
    tasks_ahead: int = 0  #: of its project's tasks with a higher priority
    beside: int = 0  #: others of its own task, in random order with it
    turn: int = 1  #: the place of its project in the order of fair share, from 1
    turns: int = 1  #: among so many that have something ready


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was read about a chunk and its surroundings, at one moment."""

    chunk: Chunk
    task: Task
    now: datetime
    project: Project | None = None
    prospects: Sequence[Prospect] = ()  #: every live container
    attempts: Sequence[Past] = ()  #: newest first
    pseudonyms: Mapping[str, str] = field(default_factory=dict)  #: by account
    queue: Queue | None = None
    asked: Facts | None = None  #: of the validator's chunk that compares this one's answers
    waits_for: Sequence[str] = ()  #: what its task waits for, a sentence for each task that it comes after


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One sentence, what lies behind it (most important first), and what will happen or what to do."""

    summary: str
    reasons: tuple[str, ...] = ()
    next: str = ""


def clock(moment: datetime, now: datetime) -> str:
    """`12:05:31 UTC`, with the date where it is not today's."""
    return f"{moment:%H:%M:%S} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def given(facts: Facts) -> set[tuple[str, str]]:
    """Identity and platform of those who answered, or are at it."""
    rule = facts.task.validation
    out: tuple[Lease | Candidate, ...] = (*facts.chunk.leases, *facts.chunk.candidates)
    return {
        (identity(rule, account=one.account, host=one.host, container=one.container), one.platform)
        for one in out
    }


def giver(one: Past) -> str:
    """Whose attempt it was, as an export names them."""
    return f"{one.container} on host {one.host} ({one.account or 'unknown'})"


def last_failure(facts: Facts) -> Past | None:
    """The newest failure in its history, or None."""
    return next((one for one in facts.attempts if one.outcome != "ok"), None)


def times(number: int) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
