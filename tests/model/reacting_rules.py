"""The product's own rules about reactions, asked with the model's documents; each question once."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache

from model.reacting_state import ASIDE, Database, TaskDocument
from source_server.domain.job import Job
from source_server.domain.reactions import (
    Reaction,
    Step,
    companion,
    companion_id,
    due,
    is_outdated,
    next_step,
    outcome_of,
)
from source_server.domain.task import Task, TaskOutcome, TaskState
from source_server.domain.validation import Validation

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
JOB = Job(action=("/bin/report",))


@cache
def task_of(document: TaskDocument) -> Task:
    """The scientist's task, with a job for each reaction."""
    return Task(
        id=document.id,
        project="p",
        owner="ada",
        name="t",
        job=JOB,
        created=NOW,
        success=JOB,
        failure=JOB,
        after=JOB,
        state=TaskState.COMPLETE if document.outcome else TaskState.RUNNING,
        outcome=TaskOutcome(document.outcome) if document.outcome else None,
        reacting=document.reacting,
        rounds=document.rounds,
        cancelled=document.cancelled,
        ends_as=TaskOutcome(document.ends_as) if document.ends_as else None,
    )


@cache
def outcome(document: TaskDocument, chunk: str) -> str:
    """How a task or companion has ended whose chunk has come to this."""
    return outcome_of(task_of(document), int(chunk == ASIDE)).value


@cache
def due_of(outcome_: str) -> tuple[str, ...]:
    """The reactions to this outcome, in their order."""
    return tuple(one.value for one in due(task_of(TaskDocument()), TaskOutcome(outcome_)))


@cache
def next_of(document: TaskDocument, ended: tuple[tuple[str, bool], ...]) -> str:
    """The reaction to be made, or `wait`, or `end`."""
    step = next_step(task_of(document), {Reaction(name): is_over for name, is_over in ended})
    return step.value if isinstance(step, Step) else f"make {step.value}"


@cache
def new_companion(document: TaskDocument, reaction: str) -> TaskDocument:
    """What is made."""
    made = companion(task_of(document), Reaction(reaction), Validation(), None, NOW)
    return TaskDocument(id=made.id, reaction=reaction, of_rounds=document.rounds)


@cache
def outdated(one: TaskDocument, parent: TaskDocument) -> bool:
    """Whether nobody waits for this companion any more."""
    made = companion(
        task_of(parent._replace(outcome=parent.outcome or "succeeded", rounds=one.of_rounds)),
        Reaction(one.reaction),
        Validation(),
        None,
        NOW,
    )
    return is_outdated(made, task_of(parent))


def ended_of(
    document: TaskDocument, database: Database, *, named: bool = True
) -> tuple[tuple[str, bool], ...]:
    """The companions that are there of the present decision, and whether each is complete.

    `named`: found by the ids that they have to have, not by what they say of themselves.
    """
    found = {one.id: one for one in database.companions}
    said = []
    for reaction in due_of(document.outcome):
        one = found.get(companion_id(document.id, Reaction(reaction), document.rounds))
        if not named:
            of_this = (reaction, document.rounds)
            one = next((one for one in database.companions if (one.reaction, one.of_rounds) == of_this), None)
        if one is not None:
            said.append((reaction, bool(one.outcome)))
    return tuple(said)
