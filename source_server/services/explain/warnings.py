"""What a scientist should know when handing a task in: that it cannot run with the containers that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from source_server.domain.depending import doubtful
from source_server.domain.prospects import obstacle, quorum_shortage
from source_server.domain.reactions import Reaction, companion, job_of
from source_server.domain.task import Task, TaskState
from source_server.domain.validation import Validation
from source_server.services.containers.live import LiveContainers, Snapshot
from source_server.services.containers.prospects import prospects_of
from source_server.stores.database import Stores

MOST_TASKS = 50  #: tasks looked at for one answer
NAMED = 3  #: tasks named beside a warning


class Warn:
    """Compares what tasks ask for with the live containers."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(self, tasks: Sequence[Task]) -> list[str]:
        """One sentence for each thing that is missing now; with several tasks it names those that it is about."""
        there = LiveContainers(self._stores).now()
        about: dict[str, list[str]] = {}
        looked_at = [one for one in tasks if one.state is not TaskState.COMPLETE and not one.cancelled]
        for task in looked_at[:MOST_TASKS]:
            for sentence in (*_missing(task, there), *self._before(task)):
                about.setdefault(sentence, []).append(task.id)
        if len(looked_at) < 2:
            return list(about)
        return [f"{_named(ids, len(looked_at))}: {sentence}" for sentence, ids in about.items()]

    def _before(self, task: Task) -> tuple[str, ...]:
        if not task.after_tasks or task.state is not TaskState.WAITING:
            return ()
        return doubtful(task, self._stores.tasks.read(task.after_tasks))

    def of(self, ids: Sequence[str]) -> list[str]:
        """The same for the tasks with these ids."""
        chosen = list(ids)[: 2 * MOST_TASKS]
        return self(list(self._stores.tasks.read(chosen).values())) if chosen else []


def _missing(task: Task, there: Snapshot) -> Iterator[str]:
    prospects = prospects_of(task, there)
    stopped = obstacle(prospects, task.validation)
    if stopped is not None:
        yield " ".join((stopped.says, *stopped.details))
    else:
        shortage = quorum_shortage(task.validation, [one for one in prospects if one.free])
        if shortage is not None:
            yield shortage
    if task.validator is not None and not any(one.trusted for one in there.containers):
        yield "The validator runs only in a container that the operator labelled trusted, and none is live."
    if there.containers:  # else all has been said
        yield from _missing_for_reactions(task, there)


def _missing_for_reactions(task: Task, there: Snapshot) -> Iterator[str]:
    for reaction in Reaction:
        if job_of(task, reaction) is not None:
            one = companion(task, reaction, Validation(), None, task.created)
            stopped = obstacle(prospects_of(one, there), one.validation)
            if stopped is not None:
                yield f"Nobody could run the job {reaction.value} now. " + " ".join(
                    (stopped.says, *stopped.details)
                )


def _named(ids: Sequence[str], number: int) -> str:
    if len(ids) == number:
        return "All tasks"
    rest = len(ids) - NAMED
    shown = ", ".join(ids[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"Task {shown}" if len(ids) == 1 else f"Tasks {shown}"
