"""Reactions: what runs once the outcome of a task is decided, `success` or `failure`, and then `after`.

Each is a companion task with one chunk. Which companion comes next follows from the task and from what became of
those that are there, so that any process can go on after a crash of another. A companion's id carries the number of
rounds that its task had seen: a rerun ends with a decision, and companions, of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum

from source_server.domain.chunk import Chunk, ChunkFile
from source_server.domain.container import Container
from source_server.domain.job import Job
from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.domain.validation import Distinct, Validation

UPLOAD = "reaction"  #: a companion's chunk comes from no upload, and carries this in its place
RESULTS = "results.csv"  #: the name that the task's table of results has below /in


class Reaction(str, Enum):
    """The jobs of a task that react to its outcome."""

    SUCCESS = "success"
    FAILURE = "failure"
    AFTER = "after"


class Step(str, Enum):
    """What is to be done, where it is not making the next companion."""

    WAIT = "wait"  #: a companion is still to end
    END = "end"  #: all have ended


def outcome_of(task: Task, quarantined: int) -> TaskOutcome:
    """How a task without an open chunk has ended; `quarantined` may be counted up to one more than `max_failed`."""
    if task.cancelled:
        return TaskOutcome.CANCELLED
    if task.ends_as is not None:
        return task.ends_as  # its limits have decided
    return TaskOutcome.FAILED if quarantined > task.max_failed else TaskOutcome.SUCCEEDED


def due(task: Task, outcome: TaskOutcome) -> tuple[Reaction, ...]:
    """The reactions to this outcome that the task has a job for, in their order."""
    own = {TaskOutcome.SUCCEEDED: Reaction.SUCCESS, TaskOutcome.FAILED: Reaction.FAILURE}.get(outcome)
    return tuple(one for one in (own, Reaction.AFTER) if one is not None and job_of(task, one) is not None)


def job_of(task: Task, reaction: Reaction) -> Job | None:
    """The task's job for a reaction, if it has one."""
    return {Reaction.SUCCESS: task.success, Reaction.FAILURE: task.failure, Reaction.AFTER: task.after}[
        reaction
    ]


def next_step(task: Task, ended: Mapping[Reaction, bool]) -> Reaction | Step:
    """The reaction whose companion is to be made, or else what there is to do.

    `ended`: of the companions that are there, whether each is complete, however it ended.
    """
    assert task.outcome is not None
    for reaction in due(task, task.outcome):
        if reaction not in ended:
            return reaction
        if not ended[reaction]:
            return Step.WAIT
    return Step.END


def companion_id(task: str, reaction: Reaction, rounds: int) -> str:
    """The id of the companion that runs this reaction to the decision after so many rounds."""
    return f"{task}--{reaction.value}-{rounds}"


def companion_ids(task: Task) -> list[str]:
    """The ids of all companions that may react to the task's present outcome."""
    return [companion_id(task.id, one, task.rounds) for one in Reaction]


def rounds_of(companion: Task) -> int:
    """After how many rounds of its task the decision fell that a companion reacts to."""
    return int(companion.id.rpartition("-")[2])


def is_outdated(companion: Task, parent: Task | None) -> bool:
    """Whether nobody waits for a companion any more: its task runs again, its reactions were ended, or it is gone."""
    return parent is None or not parent.reacting or parent.rounds != rounds_of(companion)


def companion(task: Task, reaction: Reaction, rule: Validation, validator: Job | None, now: datetime) -> Task:
    """The task that runs a reaction; it runs from the moment it is there, and its one chunk is there before it."""
    job = job_of(task, reaction)
    assert job is not None
    return Task(
        id=companion_id(task.id, reaction, task.rounds),
        project=task.project,
        owner=task.owner,
        name=f"{reaction.value} of {task.name}",
        job=job,
        created=now,
        state=TaskState.RUNNING,
        started=now,
        sealed=True,
        examined=True,
        paused=task.paused,
        priority=task.priority,
        validation=rule,
        validator=validator,
        reacts_to=task.id,
        reaction=reaction.value,
        upload=Upload(id=UPLOAD, attempt=UPLOAD, complete=True, chunks=1, rows=1),
    )


def only_chunk(
    companion: Task, text: str, files: tuple[ChunkFile, ...], *, r: float, rev: int, run: int
) -> Chunk:
    """A companion's one chunk; its input is the summary `text`."""
    return Chunk(
        id=f"{companion.id}.0",
        project=companion.project,
        task=companion.id,
        n=0,
        r=r,
        rev=rev,
        run=run,
        upload=UPLOAD,
        replicas=companion.validation.first_replicas,
        wanted=companion.validation.first_replicas,
        input=text,
        files=files,
    )


def rule_for(of_project: Validation | None, validator: Job | None) -> tuple[Validation, Job | None]:
    """How a reaction's answer is checked: as its project says, but for what only many chunks can have."""
    if of_project is None:
        return Validation(), None
    distinct = Distinct.ACCOUNT if of_project.distinct is Distinct.VARIANT else of_project.distinct
    return replace(of_project, distinct=distinct, canaries=0.0), validator


def is_preferred(task: Task, container: Container) -> bool:
    """Whether a container is one of those that reactions go to while there are any; of other tasks none is."""
    return task.reacts_to is not None and container.trusted
