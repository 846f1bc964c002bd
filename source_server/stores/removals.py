"""Deleting tasks: the mark that makes one nobody's, its removal piece by piece, and what stays known of its id.

What stays is a number: the chunks of a later task of the same id begin with a run that no earlier one reached. So
tickets, results and late answers of a deleted task never count for another one, whenever they come.
"""

from __future__ import annotations

from datetime import datetime

from pymongo.database import Database

from source_server.domain.notice import NoticeState
from source_server.domain.task import TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.tasks import TOLD

PIECE = 1000  #: documents removed in one go
RUNS = 2**20  #: runs that are set aside for each task of an id; each rerun takes one
BY_TASK = (
    "chunks",
    "results",
    "errors",
    "error_groups",
    "appended",
    "outbox",
)  #: all of these name their task, and are found by it
BY_ID = ("paces", "tallies")


class Removals:
    """Each step can be repeated, and taken by several processes at once."""

    def __init__(self, database: Database[Document]) -> None:
        self._tasks = Gate(database, "tasks")
        self._removed = Gate(database, "removed")
        self._gates = {name: Gate(database, name) for name in (*BY_TASK, *BY_ID)}

    def ensure_indexes(self) -> None:
        """Tasks that are being deleted."""
        marked = {"deleting": {"$type": "date"}}
        self._tasks.index([("deleting", 1)], name="deleting", partialFilterExpression=marked)

    def confirm(self, task_id: str) -> None:
        """Wait until a majority has it that a task is being deleted, or is gone; whichever the primary says."""
        self._tasks.confirm({"_id": task_id, "deleting": {"$type": "date"}})

    def mark(self, task_id: str, now: datetime) -> bool:
        """Make a task that waits, or is complete without a reaction under way, nobody's; whether this call did.

        All of its gates are closed with it. Not while something is to be told of it that is not in the outbox yet.
        """
        # First: whoever makes a task of this id, once it is gone, finds the number.
        self._removed.update_one({"_id": task_id}, {"$inc": {"times": 1}}, upsert=True)
        states = [TaskState.WAITING.value, TaskState.COMPLETE.value]
        guard = {
            "_id": task_id,
            "state": {"$in": states},
            "reacting": {"$ne": True},
            "deleting": None,
            **TOLD,
        }
        return self._tasks.update_one(guard, {"$set": {"deleting": now, "cancelled": True}})

    def under_way(self) -> list[str]:
        """The tasks that are being deleted."""
        return [one["_id"] for one in self._tasks.find({"deleting": {"$type": "date"}}, {"_id": 1})]

    def remove_some(self, task_id: str, validator: str | None) -> int:
        """Remove some of what belongs to the task, its reactions and its validator's task; how many documents.

        Chunks go first: where there is none, no attempt is stored any more. Messages that wait for their next try stay.
        """
        for name in BY_TASK:
            kept = {"state": {"$ne": NoticeState.WAITING.value}} if name == "outbox" else {}
            if removed := self._remove(self._gates[name], {**_of("task", task_id, validator), **kept}):
                return removed
        for name in BY_ID:
            if removed := self._remove(self._gates[name], _of("_id", task_id, validator)):
                return removed
        companions = {"$and": [_of("_id", task_id, validator), {"_id": {"$ne": task_id}}]}
        return self._remove(self._tasks, companions)

    def note_removed(self, task_id: str, now: datetime) -> None:
        """Something of it went at this instant."""
        self._tasks.update_one({"_id": task_id, "deleting": {"$type": "date"}}, {"$set": {"deleting": now}})

    def finish(self, task_id: str, quiet_since: datetime) -> bool:
        """Remove the task itself if nothing of it has gone since then; whether this call did. Its id is free again."""
        return self._tasks.delete_many({"_id": task_id, "deleting": {"$lt": quiet_since}}) > 0

    def first_run(self, task_id: str) -> int:
        """The run that chunks of a task of this id begin with."""
        found = self._removed.find_one({"_id": task_id})
        return 0 if found is None else int(found["times"]) * RUNS

    def _remove(self, gate: Gate, query: Document) -> int:
        ids = [one["_id"] for one in gate.find(query, {"_id": 1}, limit=PIECE)]
        return gate.delete_many({"_id": {"$in": ids}}) if ids else 0


def _of(field: str, task_id: str, validator: str | None) -> Document:
    """What belongs to the task or to one of its companions."""
    # No task of its own has such a name, so the range holds its reactions, and their validators', and nothing else.
    reactions = {field: {"$gte": f"{task_id}--", "$lt": f"{task_id}-."}}
    own = [task_id] if validator is None else [task_id, validator]
    return {"$or": [{field: {"$in": own}}, reactions]}
