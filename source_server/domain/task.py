"""Projects, tasks and jobs: what a scientist asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from source_server.domain.container import Container
from source_server.domain.requirements import Requirement, in_words, unmet
from source_server.domain.rounds import Round
from source_server.domain.validation import Validation

MAX_JOB = 128 * 1024  #: bytes of a job's action and environment together


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

    action: tuple[str, ...]  #: the whole command line, with {field} placeholders; empty: the image's own
    own_command: bool = False  #: whether it is empty: lists of tasks on offer leave the action itself out
    image: str | None = None  #: the image's id or digest; None: any container
    architecture: str | None = (
        None  #: of that image, where the server knows it: the label `arch` that it needs
    )
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    requires: tuple[Requirement, ...] = ()  #: of a container's labels and resources


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
    paused_why: str | None = None  #: set when the task paused itself
    examined: bool = False  #: its first attempts have been looked at: it does not pause itself any more
    priority: int = 0  #: among the tasks of its project, higher first
    validation: Validation = field(default_factory=Validation)
    validator: Job | None = None  #: the command that compares answers, for `comparison: validator`
    validates: str | None = None  #: this is no scientist's task, but the validator of that one
    round: Round | None = None  #: the round that sends chunks out again, while it is under way
    rounds: int = 0  #: rounds begun so far
    cancelled: bool = False  #: the gate: closed before any chunk is swept
    sealed: bool = False  #: the upload is complete, no further chunk will come
    fields: tuple[str, ...] = ()  #: names of the input's fields, in their order
    upload: Upload | None = None
    started: datetime | None = None
    ended: datetime | None = None
    dealt: bool = (
        False  #: a deal of it has ended: in an assigned-only project, what comes back is dealt again
    )

    @property
    def claimable(self) -> bool:
        """Whether chunks of this task may be handed out."""
        return self.state is TaskState.RUNNING and self.sealed and not (self.paused or self.cancelled)


@dataclass(frozen=True, kw_only=True)
class Lack:
    """One thing that a job asks for and a container has not."""

    needs: str  #: what the job asks for, in words
    has: str = "nothing of the kind"  #: what the container has in its place
    why: str | None = None  #: its own words, in the place of what it has

    def __str__(self) -> str:
        return f"{self.needs} ({self.why or f'it has {self.has}'})"


def lacks(task: Task, container: Container) -> list[Lack]:
    """All that keeps a container from running the task's job; empty when it fits."""
    job = task.job
    found = []
    if not container.allows(task.project):
        found.append(_leave(task.project, container))
    if task.validates is not None and not container.trusted:
        found.append(Lack(needs="the operator's label trusted"))
    if job.image is not None and "sandbox" not in container.runtimes and job.image != container.image:
        found.append(
            Lack(needs=f"image {job.image} or a sandbox runtime", has=f"image {container.image or 'none'}")
        )
    elif job.own_command and "sandbox" not in container.runtimes:
        found.append(Lack(needs="a sandbox runtime, as the job runs its image's own command"))
    if job.image is None and "process" not in container.runtimes:
        has_runtimes = f"only {' and '.join(container.runtimes) or 'none'}"
        found.append(Lack(needs="the runtime process, as the job names no image", has=has_runtimes))
    if job.image is not None and job.image in container.cannot:
        found.append(Lack(needs=f"image {job.image}", why=container.cannot[job.image].rstrip(".")))
    has = {**container.resources, **container.labels}
    for one in unmet(_asked(job), has):
        known = {"has": in_words(has[one.name])} if one.name in has else {}
        found.append(Lack(needs=str(one), **known))
    return found


def _leave(project: str, container: Container) -> Lack:
    """The volunteer has not allowed this project."""
    allowed = sorted(name for name in container.projects or () if container.allows(name))
    named = f"leave for {', '.join(allowed[:3])}" + (
        f" and {len(allowed) - 3} more" if len(allowed) > 3 else ""
    )
    return Lack(
        needs=f"the volunteer's leave to run project {project}", has=named if allowed else "no such leave"
    )


def _asked(job: Job) -> tuple[Requirement, ...]:
    """What the job asks for, and the architecture that its image was made for."""
    if job.architecture is None:
        return job.requires
    needed = Requirement(name="arch", one_of=(job.architecture,))
    return job.requires if needed in job.requires else (*job.requires, needed)


def fits(task: Task, container: Container) -> bool:
    """Whether a container can run the task's job: image, labels and resources."""
    return not lacks(task, container)


def job_bytes(job: Job) -> int:
    """The size of what a job hands to every attempt: its command line and its environment, in bytes of UTF-8."""
    texts = [*job.action, *job.env.keys(), *job.env.values()]
    return sum(len(text.encode()) for text in texts)


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
