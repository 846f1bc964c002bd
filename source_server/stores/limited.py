"""Tasks with limits, and tasks with something to tell: changes of a task that follow from those."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.database import Database

from source_server.domain.limits import Limits
from source_server.domain.notice import Target
from source_server.domain.task import Task, TaskOutcome, TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.limit_documents import limits_document, targets_document
from source_server.stores.tasks import same_rounds

RUNNING = {"state": TaskState.RUNNING.value}


class Limited:
    """Every change names the state it expects."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """Who has something to tell: few at any time."""
        self._gate.index([("told", 1)], name="untold", partialFilterExpression={"told": False})

    def pause(self, task: Task, why: str) -> bool:
        """The task pauses itself, unless its limits have changed since it was read; whether this call did."""
        guard = {**_as_read(task), "paused": False}
        change = {"paused": True, "paused_why": why, "told": False}
        return self._gate.update_one(guard, {"$set": change, "$inc": {"self_pauses": 1}})

    def end(self, task: Task, outcome: TaskOutcome, why: str) -> bool:
        """Close the task's gate: nothing more is handed out, and it will have this outcome; whether this call did."""
        guard = {**_as_read(task), **same_rounds(task)}
        # An open-ended one takes no more rows: it could not end otherwise.
        change = {"ends_as": outcome.value, "ended_why": why, "open_ended": False}
        return self._gate.update_one(guard, {"$set": change})

    def set_limits(self, task: Task, limits: Limits | None, *, counted: bool) -> bool:
        """Change its limits; False when it has started, or its limits have changed, since it was read."""
        guard = {"_id": task.id, "state": task.state.value, "limits": limits_document(task.limits)}
        change = {"limits": limits_document(limits), "counted": counted}
        return self._gate.update_one(guard, {"$set": change})

    def set_targets(self, task_id: str, targets: Sequence[Target]) -> None:
        """Change who is told from now on."""
        self._gate.update_one({"_id": task_id}, {"$set": {"notify": targets_document(targets)}})

    def untold(self, *, limit: int) -> list[str]:
        """Some tasks whose last event is not in the outbox yet."""
        return [one["_id"] for one in self._gate.find({"told": False}, {"_id": 1}, limit=limit)]

    def note_told(self, task: Task) -> None:
        """The messages about the event that the task was read with are in the outbox."""
        seen = {"state": task.state.value, "self_pauses": task.self_pauses or {"$in": [0, None]}}
        guard = {"_id": task.id, "rounds": task.rounds or {"$in": [0, None]}, **seen}
        self._gate.update_one(guard, {"$set": {"told": True}})


def _as_read(task: Task) -> Document:
    limits = limits_document(task.limits)
    return {"_id": task.id, **RUNNING, "cancelled": False, "ends_as": None, "limits": limits}
