"""Projects, tasks and jobs: what a scientist asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from source_server.domain.appending import Appending
from source_server.domain.container import Container
from source_server.domain.features import IN_WORDS, Feature, asked
from source_server.domain.job import Job
from source_server.domain.limits import Limits
from source_server.domain.notice import Target
from source_server.domain.requirements import Requirement, in_words, unmet
from source_server.domain.rounds import Round
from source_server.domain.validation import Validation


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
    success: Job | None = None  #: runs once when the task has succeeded
    failure: Job | None = None  #: runs once when it has failed
    after: Job | None = None  #: runs once at the end, always
    max_failed: int = 0  #: chunks that may be set aside without the task having failed
    reacting: bool = False  #: the outcome is decided, and a reaction to it is still to end
    reacts_to: str | None = None  #: this is no scientist's task, but a reaction to that one's outcome
    reaction: str | None = None  #: which: success, failure or after
    reacted: datetime | None = None  #: when the last reaction to its present outcome had ended
    after_tasks: tuple[str, ...] = ()  #: those that must have succeeded before this one starts
    start_wanted: bool = False  #: it was started, and waits for those
    open_ended: bool = False  #: chunks are added while it runs, until it is closed
    appending: Appending | None = None  #: rows that are being added just now
    body_digest: str | None = None  #: SHA-256 of the body that made it: the same id and body is the same task
    origin: str | None = None  #: the receiver that made it; None: a scientist
    limits: Limits | None = None  #: how far it may go
    counted: bool = False  #: its attempts are counted for its limits; fixed when it starts
    #: The gate of its limits: no more is handed out, and this is its outcome.
    ends_as: TaskOutcome | None = None
    ended_why: str | None = None  #: goes with it, as a sentence
    notify: tuple[Target, ...] = ()  #: who is told when it is complete, or pauses itself
    told: bool = True  #: whether the messages about its last event are in the outbox
    self_pauses: int = 0  #: how often it has paused itself
    round: Round | None = None  #: the round that sends chunks out again, while it is under way
    rounds: int = 0  #: rounds begun so far
    cancelled: bool = False  #: the gate: closed before any chunk is swept
    cancelled_why: str | None = None  #: set when the task was cancelled by itself
    #: It is being deleted, and nobody's any more; when something of it last went.
    deleting: datetime | None = None
    sealed: bool = False  #: the upload is complete, no further chunk will come
    fields: tuple[str, ...] = ()  #: names of the input's fields, in their order
    upload: Upload | None = None
    large_inputs: bool = False  #: some chunk's input is a file, as it is too large to be told
    started: datetime | None = None
    ended: datetime | None = None
    #: A deal of it has ended: in an assigned-only project, what comes back is dealt again.
    dealt: bool = False

    @property
    def claimable(self) -> bool:
        """Whether chunks of this task may be handed out."""
        gates_open = not (self.paused or self.cancelled or self.ends_as)
        return self.state is TaskState.RUNNING and self.sealed and gates_open


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
    found = []
    if not container.allows(task.project):
        found.append(_leave(task.project, container))
    if task.validates is not None and not container.trusted:
        found.append(Lack(needs="the operator's label trusted"))
    found += _too_old_for(task, container)
    if not task.job.variants:
        return [*found, *job_lacks(task.job, container)]
    return [*found, *min((job_lacks(one, container) for one in _each_variant(task.job)), key=len)]


def _too_old_for(task: Task, container: Container) -> list[Lack]:
    """What the container's client does not know; a reaction always has the table of results as a file."""
    needed = dict.fromkeys(asked(task.job))
    if task.large_inputs or task.reacts_to is not None:
        needed[Feature.FILES] = None
    return [
        Lack(needs=IN_WORDS[one], why="its client is too old for that; update it")
        for one in needed
        if one.value not in container.features
    ]


def runnable_variants(job: Job, container: Container) -> tuple[str, ...]:
    """The names of the job's variants that a container can run."""
    return tuple(one.name for one in job.variants if not job_lacks(job.in_variant(one.name), container))


def _each_variant(job: Job) -> list[Job]:
    return [job.in_variant(one.name) for one in job.variants]


def job_lacks(job: Job, container: Container) -> list[Lack]:
    """What keeps a container from running a job (of one variant): image, labels and resources."""
    found = []
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
    # What it offers counts before what it is called: a label of that name is no memory.
    has = {**container.labels, **container.resources}
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
    """What the job asks for, also by its limits, and the architecture that its image was made for."""
    limits = {"cpus": job.cpus, "memory_mb": job.memory_mb, "disk_mb": job.disk_mb}
    needed = [
        Requirement(name=name, at_least=float(least)) for name, least in limits.items() if least is not None
    ]
    if job.architecture is not None:
        needed.append(Requirement(name="arch", one_of=(job.architecture,)))
    return (*job.requires, *(one for one in needed if one not in job.requires))


def fits(task: Task, container: Container) -> bool:
    """Whether a container can run the task's job: image, labels and resources."""
    return not lacks(task, container)
