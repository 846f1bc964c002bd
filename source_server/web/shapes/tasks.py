"""The shapes of answers about tasks, their data and their deals."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from source_server.web.shapes.base import Instant, Said
from source_server.web.shapes.jobs import Job, Reactions
from source_server.web.shapes.projects import Rule


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


class Deleted(Said):
    """A task that is nobody's from now on, and is being removed."""

    deleted: str


class Appended(Said):
    """Rows that came to an open-ended task: chunks from number `first` on."""

    key: str
    first: int
    chunks: int
