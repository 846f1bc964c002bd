"""Tasks page by page: a list never grows with the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.task import Task, TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.task_documents import read_task

Place = tuple[datetime, str]  #: when a task was made, and its id: where a page begins


class TaskLists:
    """Reads the collection of tasks."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """A project's tasks in the order in which they are shown."""
        self._gate.index([("project", 1), ("created", 1), ("_id", 1)], name="list")

    def page(
        self, projects: Sequence[str] | None, *, state: TaskState | None, after: Place | None, limit: int
    ) -> list[Task]:
        """So many tasks of these projects (None: of all) behind that place, oldest first; none of the server's own."""
        query: dict[str, Any] = {"validates": None, "reacts_to": None, "deleting": None}
        if projects is not None:
            query["project"] = {"$in": list(projects)}
        if state is not None:
            query["state"] = state.value
        if after is not None:
            created, task = after
            query["$or"] = [{"created": {"$gt": created}}, {"created": created, "_id": {"$gt": task}}]
        found = self._gate.find(query, sort=[("created", 1), ("_id", 1)], limit=limit)
        return [read_task(one) for one in found]
