"""The shapes of answers, for `/openapi.json`; the tests hold every answer of the server to them.

What may be absent has a default; what is there but may be null says so.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Instant = str | None  #: RFC 3339 in UTC, or null: not yet, or not known


class Said(BaseModel):
    """An answer: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    """What every refusal says."""

    error: str = Field(description="One sentence for people.")


class Health(Said):
    """The server can work: its database answers."""

    ok: bool


# --- projects and tasks


class Validator(Said):
    """How two answers are compared."""

    kind: Literal["exact", "json", "validator"]
    relative: float
    absolute: float
    validator: list[str] | None


class Rule(Said):
    """How answers are checked."""

    quorum: int
    replicas: int
    most: int
    distinct: Literal["account", "host", "container", "variant"]
    same: Literal["any", "arch", "cpu-family"]
    comparator: Validator
    adaptive: bool
    canaries: float


class Project(Said):
    """A project and its policy."""

    id: str
    share: float
    priority: int
    assigned_only: bool
    image: str | None = Field(description="Of jobs that name none, in tasks made from now on.")
    notify: list[dict[str, str]]
    validation: Rule | None
    created: Instant


class Projects(Said):
    """The caller's projects, by name."""

    projects: list[Project]


class Manifest(Said):
    """What a client needs to execute a job."""

    image: str | None
    action: list[str]
    env: dict[str, str]
    timeout_s: float
    rows: int | None = Field(description="Rows of a whole chunk; null: one row, without a list around it.")


class ResultType(Said):
    """What an answer must be; absent: text."""

    type: Literal["text", "number", "json", "files"]
    schema_: Any = Field(default=None, alias="schema", description="JSON Schema (draft 2020-12).")


class Variant(Said):
    """One of a job's images, and what is different there."""

    name: str
    image: str
    action: list[str] | None = None
    env: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Job(Manifest):
    """What is executed, with all that was said of it."""

    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    inputs: dict[str, str] | None = None
    outputs: list[str] | None = None
    result: ResultType | None = None
    variants: list[Variant] | None = None
    variant_field: str | None = None


class Reaction(Job):
    """What is executed once the outcome is known."""

    requires: dict[str, Any]


class Reactions(Said):
    """The jobs that run once the outcome of a task is known."""

    success: Reaction | None = None
    failure: Reaction | None = None
    after: Reaction | None = None


class Round(Said):
    """The round that sends chunks of a task out again."""

    kind: Literal["rerun", "requeue"]
    which: str
    sent: int


class Task(Said):
    """A task without its counts."""

    id: str
    project: str
    name: str
    state: Literal["waiting", "running", "complete"]
    outcome: Literal["succeeded", "failed", "cancelled"] | None
    paused: bool
    paused_why: str | None
    ended_why: str | None = Field(description="Why its limits ended it.")
    limits: dict[str, Any] | None
    notify: list[dict[str, str]]
    round: Round | None
    cancelled: bool
    cancelled_why: str | None = Field(description="Why it was cancelled by itself.")
    reacting: bool = Field(description="Its outcome is decided, and a reaction to it is still to end.")
    reacted: Instant
    reacts_to: str | None = Field(description="Of a reaction: the task to whose outcome.")
    start_wanted: bool = Field(description="It was started, and waits for the tasks that it comes after.")
    sealed: bool = Field(description="Its data is complete.")
    job: Job
    rows_per_chunk: int
    requires: dict[str, Any]
    priority: int
    validation: Rule
    reactions: Reactions
    max_failed: int = Field(description="Chunks that may be set aside before the task has failed.")
    after_tasks: list[str] = Field(description="It starts when these have succeeded.")
    open_ended: bool = Field(description="More rows may come.")
    origin: str | None = Field(description="The receiver that made it.")
    template: str = Field(description="What of it a signature would be about, hashed.")
    fields: list[str]
    rows: int
    created: Instant
    started: Instant
    ended: Instant


class Tasks(Said):
    """A page of the caller's tasks, oldest first."""

    tasks: list[Task]
    next: str | None = Field(description="`?after=` of the next page; null on the last one.")


class Used(Said):
    """What a task with limits has used."""

    cpu_hours: float
    answers: int


class SentNotice(Said):
    """A message about a task, and how its last try ended."""

    id: str
    event: Literal["task.completed", "task.paused"]
    webhook: str | None = None
    email: str | None = None
    state: Literal["waiting", "delivered", "given_up"]
    tries: int
    last: str | None
    created: Instant
    due: Instant
    ended: Instant


class ReactionRun(Said):
    """A reaction to an outcome of a task, and what became of it."""

    reaction: Literal["success", "failure", "after"]
    task: str = Field(description="The companion task that runs it.")
    current: bool = Field(description="It reacts to the present outcome; others are history.")
    state: Literal["waiting", "running", "complete"]
    outcome: Literal["succeeded", "failed", "cancelled"] | None
    answer: str | None = Field(description="At most 4,096 letters of it.")
    error: str | None = Field(description="How its last attempt failed, while it has no answer.")
    attempts: int
    started: Instant
    ended: Instant


class TaskReport(Task):
    """A task with its chunks counted by state."""

    reaction_runs: list[ReactionRun] = Field(
        description="To all of its outcomes, the newest last; at most 20."
    )
    used: Used | None = Field(description="Of its limits, seconds behind what came in.")
    notices: list[SentNotice] = Field(description="The newest messages about it, newest first.")
    chunks: dict[str, int] = Field(description="`total`, and a number for each state that chunks are in.")


class WarnedTask(TaskReport):
    """The same, with what its submitter should know."""

    warnings: list[str]


class SteeredTask(TaskReport):
    """The same; starting it answers with warnings too."""

    warnings: list[str] | None = None


class Uploaded(Said):
    """An upload that was received whole."""

    upload: str
    chunks: int
    rows: int


class Deal(Said):
    """What a deal did and what is left."""

    id: str
    done: bool
    tasks: list[str]
    dealt: dict[str, int] = Field(description="Chunks dealt by it, by container.")
    holding: dict[str, int] = Field(description="Chunks held now, by container.")
    remaining: int
    unassignable: int


class WarnedDeal(Deal):
    """The same, with what the caller should know."""

    warnings: list[str]


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


class Deleted(Said):
    """A task that is nobody's from now on, and is being removed."""

    deleted: str


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


# --- hosts and containers


class Host(Said):
    """A host's record."""

    account: str | None
    host: str
    limit: float | None
    agreed: int
    streak: int
    disagreed: int
    blamed: int
    passed: int
    quarantined: Instant
    why: str | None


class Hosts(Said):
    """Hosts, quarantined ones first."""

    hosts: list[Host]


class Cleared(Said):
    """Whether a quarantine was ended."""

    cleared: bool


class HostName(Said):
    """A container's machine; its name is its owner's and the operator's to see."""

    id: str
    name: str | None = None


class ContainerPolicy(Said):
    """What the volunteer allows."""

    projects: list[str] | None
    shares: dict[str, float]


class Container(Said):
    """A client container's record."""

    id: str
    host: HostName
    account: str | None
    state: Literal["live", "purged", "left"]
    life: str
    registered: Instant
    last_seen: Instant
    labels: dict[str, str | float]
    resources: dict[str, float]
    runtimes: list[str]
    image: str | None
    policy: ContainerPolicy
    self_test: str
    cannot: dict[str, str]
    beat: int
    held: int
    paused: bool
    trusted: bool
    built_in: bool = Field(description="One of the server's own.")


class Containers(Said):
    """Client containers, live ones first."""

    containers: list[Container]


# --- files, enrolment


class File(Said):
    """A file with a name below /in or /out."""

    name: str
    sha256: str
    bytes: int


class Enrolled(Said):
    """A newcomer's account; its key is shown this once."""

    account: str
    key: str


class Appended(Said):
    """Rows that came to an open-ended task: chunks from number `first` on."""

    key: str
    first: int
    chunks: int
