"""Tasks that come after others: whether one may start, and in words what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from source_server.domain.task import Task, TaskOutcome, TaskState

MOST_FOLLOWED = 10_000  #: tasks that one may come after, directly or through others
TOGETHER = 500  #: tasks asked about in one go

_AFTER = "It comes after the task {}, which"

Edges = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]  #: task -> those that it comes after


class TooManyBefore(Exception):
    """More come before a task than are followed; the message is one sentence."""


class May(str, Enum):
    """What becomes of a task that is to start."""

    START = "start"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What those that a task comes after say about it; a sentence for each that does not let it start."""

    may: May
    reasons: tuple[str, ...] = ()


def standing(task: Task, found: Mapping[str, Task]) -> Standing:
    """`found`: the tasks that it comes after, as far as they are there; another owner's are as good as none."""
    own = {name: one for name, one in found.items() if one.owner == task.owner and one.deleting is None}
    for name in task.after_tasks:
        one = own.get(name)
        if one is not None and one.state is TaskState.COMPLETE and one.outcome is not TaskOutcome.SUCCEEDED:
            says = (
                _cancelled(name)
                if one.outcome is TaskOutcome.CANCELLED
                else f"{_AFTER.format(name)} has failed."
            )
            return Standing(may=May.NEVER, reasons=(says,))
    waits = tuple(
        sentence for name in task.after_tasks if (sentence := _waits_for(name, own.get(name))) is not None
    )
    return Standing(may=May.WAIT if waits else May.START, reasons=waits)


def doubtful(task: Task, found: Mapping[str, Task]) -> tuple[str, ...]:
    """Sentences for who hands the task in: that it will never start, or comes after what is not there (a slip?)."""
    now = standing(task, found)
    if now.may is May.NEVER:
        return now.reasons
    there = {name: one for name, one in found.items() if one.owner == task.owner and one.deleting is None}
    ending = [_cancelled(name) for name in task.after_tasks if name in there and there[name].cancelled]
    return (*ending, *(_not_there(name) for name in task.after_tasks if name not in there))


def _not_there(name: str) -> str:
    return f"{_AFTER.format(name)} does not exist yet."


def _cancelled(name: str) -> str:
    return f"{_AFTER.format(name)} was cancelled."


def _waits_for(name: str, one: Task | None) -> str | None:
    if one is None:
        return _not_there(name)
    if one.state is TaskState.WAITING:
        return f"{_AFTER.format(name)} has not started."
    if one.state is TaskState.RUNNING:
        return f"{_AFTER.format(name)} is running."
    return None


def circle(task_id: str, edges: Edges) -> list[str] | None:
    """The way from a task back to itself, as its names in order, or None where there is no such way.

    Raises TooManyBefore where that cannot be said: a circle that is not seen is a task that waits for ever.
    """
    came_from: dict[str, str] = {}
    front = [task_id]
    while front:
        further: list[str] = []
        for begin in range(0, len(front), TOGETHER):
            for one, after in edges(front[begin : begin + TOGETHER]).items():
                if task_id in after:
                    return _way(one, came_from)
                new = [name for name in dict.fromkeys(after) if name not in came_from]
                came_from.update(dict.fromkeys(new, one))
                further += new
                if len(came_from) > MOST_FOLLOWED:
                    raise TooManyBefore(
                        f"This task would come after more than {MOST_FOLLOWED:,} tasks, directly or through others: "
                        "name fewer in after_tasks."
                    )
        front = further
    return None


def _way(last: str, came_from: Mapping[str, str]) -> list[str]:
    way = [last]
    while way[-1] in came_from:
        way.append(came_from[way[-1]])
    return way[::-1]
