"""Rows that are added to open-ended tasks: what is being added lies on the task, one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.appending import Appended, Appending
from source_server.domain.task import TaskState
from source_server.stores.gate import Document, Gate

REMEMBERED_S = 7 * 86400  #: how long a request is known by its key


class Appends:
    """The field `appending` of tasks, and what requests have added."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")
        self._done = Gate(database, "appended")

    def ensure_indexes(self) -> None:
        """By task (for its removal), and to be forgotten after a week."""
        self._done.index([("task", 1)], name="task")
        self._done.index([("at", 1)], name="forget", expireAfterSeconds=REMEMBERED_S)

    def known(self, task_id: str, key: str) -> Appended | None:
        """What the request of this key has added, with a majority; None: no such request has been carried out."""
        found = self._done.find_one({"_id": f"{task_id}/{key}"})
        if found is None:
            return None
        self._done.put_if_absent([found])  # what a failover could still take away is not to be acknowledged
        return Appended(key=key, n=found["n"], count=found["count"])

    def begin(self, task_id: str, new: Appending) -> bool:
        """Write down what is to be added; False when the task takes nothing, or others were faster."""
        guard = {
            "_id": task_id,
            "open_ended": True,
            "cancelled": False,
            "appending": None,
            "upload.chunks": new.n,
            "state": {"$ne": TaskState.COMPLETE.value},
        }
        return self._gate.update_one(guard, {"$set": {"appending": asdict(new)}})

    def end(self, task_id: str, new: Appending, now: datetime) -> None:
        """All of its chunks are there: remember its key, and let the next request come."""
        count = len(new.texts)
        done = {"_id": f"{task_id}/{new.key}", "task": task_id, "n": new.n, "count": count, "at": now}
        self._done.put_if_absent([done])
        change = {
            "appending": None,
            "upload.chunks": new.n + count,
            "upload.rows": new.n + count,
            "fields": list(new.fields),
        }
        guard = {"_id": task_id, "appending.key": new.key, "appending.n": new.n}
        self._gate.update_one(guard, {"$set": change})

    def confirm_closed(self, task_id: str) -> bool:
        """Whether a majority has it that the task takes nothing more."""
        return self._gate.confirm({"_id": task_id, "open_ended": False})

    def close(self, task_id: str) -> bool:
        """Take nothing more; False while something is being added, or when the task is not open."""
        guard = {"_id": task_id, "open_ended": True, "appending": None}
        return self._gate.update_one(guard, {"$set": {"open_ended": False}})


def read_appending(document: dict[str, Any]) -> Appending:
    """What is being added, as it was written down."""
    lists: dict[str, Sequence[str]] = {name: tuple(document[name]) for name in ("texts", "fields")}
    return Appending(key=document["key"], n=document["n"], **lists)  # type: ignore[arg-type]
