"""Rows that are added to open-ended tasks: what is being added lies on the task, one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pymongo.database import Database

from source_server.domain.appending import Appended, Appending
from source_server.domain.task import TaskState
from source_server.stores.gate import Document, Gate

REMEMBERED = 100  #: requests of a task that are known by their keys


class Appends:
    """The fields `appending` and `appended` of tasks."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

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

    def end(self, task_id: str, new: Appending) -> None:
        """All of its chunks are there: let the next request come."""
        count = new.n + len(new.texts)
        done = Appended(key=new.key, n=new.n, count=len(new.texts))
        change = {
            "$set": {
                "appending": None,
                "upload.chunks": count,
                "upload.rows": count,
                "fields": list(new.fields),
            },
            "$push": {"appended": {"$each": [asdict(done)], "$slice": -REMEMBERED}},
        }
        self._gate.update_one({"_id": task_id, "appending.key": new.key, "appending.n": new.n}, change)

    def close(self, task_id: str) -> bool:
        """Take nothing more; False while something is being added, or when the task is not open."""
        guard = {"_id": task_id, "open_ended": True, "appending": None}
        return self._gate.update_one(guard, {"$set": {"open_ended": False}})


def read_appending(document: dict[str, Any]) -> Appending:
    """What is being added, as it was written down."""
    lists: dict[str, Sequence[str]] = {name: tuple(document[name]) for name in ("texts", "fields")}
    return Appending(key=document["key"], n=document["n"], **lists)  # type: ignore[arg-type]
