"""Which tasks wait for which: marks on the waiting ones."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.database import Database

from source_server.domain.task import TaskOutcome, TaskState
from source_server.stores.gate import Document, Gate

_WAITS = {"state": TaskState.WAITING.value, "cancelled": False}


class Dependencies:
    """Works on the collection of tasks."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """Who waits for a task; only those that were started are in it."""
        started = {"start_wanted": True}
        self._gate.index([("after_tasks", 1)], name="followers", partialFilterExpression=started)

    def want_start(self, task_id: str) -> bool:
        """Note that a waiting task is to start as soon as it may; False when it waits no more."""
        return self._gate.update_one({**_WAITS, "_id": task_id}, {"$set": {"start_wanted": True}})

    def cancel(self, task_id: str, why: str) -> bool:
        """Close the gate of a task that waits for what never comes; whether this call did."""
        guard = {**_WAITS, "_id": task_id}
        return self._gate.update_one(guard, {"$set": {"cancelled": True, "cancelled_why": why}})

    def followers(self, task_id: str, *, limit: int) -> list[str]:
        """Some of the started tasks that wait for this one."""
        query = {**_WAITS, "start_wanted": True, "after_tasks": task_id}
        return [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=limit)]

    def edges(self, ids: Sequence[str], owner: str) -> dict[str, list[str]]:
        """task -> those that it comes after, for this owner's tasks among these that have not succeeded.

        One that has waits for nothing any more, and so is in no circle: a chain of a task a day has no end.
        """
        query: Document = {"_id": {"$in": list(ids)}, "owner": owner, "after_tasks.0": {"$exists": True}}
        query |= {"deleting": None, "outcome": {"$ne": TaskOutcome.SUCCEEDED.value}}
        return {one["_id"]: one.get("after_tasks", []) for one in self._gate.find(query, {"after_tasks": 1})}

    def withdraw(self, task_id: str) -> bool:
        """Remove a task that was made just now, and must not be: it waits, and has no data."""
        guard = {**_WAITS, "_id": task_id, "upload": None, "start_wanted": False}
        return self._gate.delete_many(guard) > 0
