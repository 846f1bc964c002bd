"""Projects, tasks and jobs: what a scientist asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class TaskState(str, Enum):
    """A task waits until it is started, runs, and is complete once no chunk is open."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"


class TaskOutcome(str, Enum):
    """How a complete task ended; decided once."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to execute for each chunk; public to volunteers."""

    action: tuple[str, ...]  #: the whole command line, with {field} placeholders
    image: str | None = None  #: the image's id or digest; None: any container
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The data of a task, received in one all-or-nothing step."""

    id: str  #: chosen by the scientist; the same id again is the same upload
    attempt: str  #: this try at it; chunks carry it, chunks of any other try are invisible
    complete: bool = False
    ended: bool = False  #: broken off; its chunks are being removed
    touched: datetime | None = None  #: when the last batch arrived
    digest: str | None = None  #: SHA-256 of the body
    chunks: int = 0
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One computation: its job and its data."""

    id: str
    project: str
    owner: str
    name: str
    job: Job
    created: datetime
    rows_per_chunk: int = 1
    state: TaskState = TaskState.WAITING
    outcome: TaskOutcome | None = None
    paused: bool = False
    cancelled: bool = False  #: the gate: closed before any chunk is swept
    sealed: bool = False  #: the upload is complete, no further chunk will come
    fields: tuple[str, ...] = ()  #: names of the input's fields, in their order
    upload: Upload | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def claimable(self) -> bool:
        """Whether chunks of this task may be handed out."""
        return self.state is TaskState.RUNNING and self.sealed and not (self.paused or self.cancelled)


def fits(task: Task, *, runtimes: Sequence[str], image: str | None) -> bool:
    """Whether a container can run the task's job: an image needs a sandbox, or to be that very image."""
    return task.job.image is None or "sandbox" in runtimes or task.job.image == image


class BadAction(ValueError):
    """A job's action with a brace that is neither a placeholder nor doubled; the message is one sentence."""


_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


def placeholders(action: Sequence[str]) -> set[str]:
    """The field names that an action's items ask for; raises BadAction on a stray brace."""
    names: set[str] = set()
    for item in action:
        for match in _BRACES.finditer(item):
            if match.group(1) is not None:
                names.add(match.group(1))
            elif match.group() in "{}":
                raise BadAction(
                    f"The action's item {item!r} has a single {match.group()!r}; write it twice for a literal brace."
                )
    return names
