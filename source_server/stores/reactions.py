"""Reactions under way: marks on the tasks whose outcome they react to, and the companions that run them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo.database import Database

from source_server.domain.task import Task, TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.task_documents import JOBS_CONTENTS, read_task, read_without_contents, readable
from source_server.stores.unfinished import Page


class Reactions:
    """Works on the collection of tasks; its writes are repeatable."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """Tasks with reactions under way, and the companions of a task; no others are in these."""
        under_way = {"reacting": True}
        self._gate.index(
            [("reacting", 1), ("_id", 1)], name="reaction_turn", partialFilterExpression=under_way
        )
        companion = {"reacts_to": {"$type": "string"}}
        self._gate.index(
            [("reacts_to", 1), ("created", -1)], name="reactions", partialFilterExpression=companion
        )

    def read(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id, as a majority has them: no failover takes back what follows from that."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, majority=True) if ids else []
        return {one.id: one for one in readable(found)}

    def under_way(self, after: str, *, limit: int) -> Page:
        """Tasks whose reactions have not all ended, as a majority has them, without what their jobs execute."""
        query = {"reacting": True, "_id": {"$gt": after}}
        found = self._gate.find(query, JOBS_CONTENTS, sort=[("_id", 1)], limit=limit, majority=True)
        return Page(
            tasks=tuple(readable(found, read_without_contents)),
            after=found[-1]["_id"] if len(found) == limit else "",
        )

    def standing(self, ids: Sequence[str]) -> dict[str, Task]:
        """As `read`, without what their jobs execute."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, JOBS_CONTENTS, majority=True) if ids else []
        return {one.id: one for one in readable(found, read_without_contents)}

    def end(self, task_id: str, now: datetime, *, rounds: int | None = None) -> bool:
        """No reaction of the task is to come any more; whether this call ended them.

        `rounds`: only if no round has begun since the task had so many.
        """
        guard: Document = {"_id": task_id, "state": TaskState.COMPLETE.value, "reacting": True}
        if rounds is not None:
            guard["rounds"] = rounds
        return self._gate.update_one(guard, {"$set": {"reacting": False, "reacted": now}})

    def companions(self, task_id: str, *, limit: int) -> list[Task]:
        """The task's companions, of all its rounds, newest first."""
        query = {"reacts_to": task_id}
        found = self._gate.find(query, sort=[("created", -1), ("_id", -1)], limit=limit)
        return [read_task(one) for one in found]

    def set_paused(self, task_id: str, *, paused: bool) -> None:
        """Close or open the pause gate of the task's companions that run."""
        query = {"reacts_to": task_id, "state": TaskState.RUNNING.value, "paused": not paused}
        self._gate.update_many(query, {"$set": {"paused": paused}})
