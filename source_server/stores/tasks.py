"""Projects and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from pymongo.database import Database

from source_server.domain.task import Job, Task, TaskOutcome, TaskState, Upload
from source_server.stores.gate import Document, Gate

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
CLAIMABLE = {"state": TaskState.RUNNING.value, "sealed": True, "paused": False, "cancelled": False}


class Projects:
    """A project's name is its id; it belongs to the account that made it."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "projects")

    def add(self, name: str, owner: str, now: datetime) -> None:
        """Store a new project; raises AlreadyThere."""
        self._gate.insert({"_id": name, "owner": owner, "created": now})

    def find_owner(self, name: str) -> str | None:
        """The account that owns the project, or None where there is no such project."""
        found = self._gate.find_one({"_id": name}, {"owner": 1})
        return None if found is None else str(found["owner"])

    def names(self, owner: str | None) -> list[str]:
        """The projects of this account (None: of all), by name."""
        query = {} if owner is None else {"owner": owner}
        return [document["_id"] for document in self._gate.find(query, {"_id": 1}, sort=[("_id", 1)])]


class Tasks:
    """One document a task; every change names the state it expects."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """By state (claims, housekeeping) and by project (lists, exports)."""
        self._gate.index([("state", 1), ("started", 1)], name="state")
        self._gate.index([("project", 1), ("created", 1)], name="project")

    def add(self, task: Task) -> None:
        """Store a new task; raises AlreadyThere."""
        document = {**asdict(task), "_id": task.id, "state": task.state.value}
        del document["id"]
        # A job's environment is a mapping of names that a scientist chose: values here, never keys.
        document["job"]["env"] = [[name, value] for name, value in task.job.env.items()]
        self._gate.insert(document)

    def find(self, task_id: str) -> Task | None:
        """The task with this id, or None."""
        found = self._gate.find_one({"_id": task_id})
        return None if found is None else _task(found)

    def read(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id."""
        return {one["_id"]: _task(one) for one in self._gate.find({"_id": {"$in": list(ids)}})}

    def of_projects(self, projects: Sequence[str] | None) -> list[Task]:
        """The tasks of these projects (None: of all), oldest first."""
        query: dict[str, Any] = {} if projects is None else {"project": {"$in": list(projects)}}
        return [_task(document) for document in self._gate.find(query, sort=[("created", 1), ("_id", 1)])]

    def claimable(
        self, images: Sequence[str | None] | None, *, limit: int, besides: Sequence[str] = ()
    ) -> list[Task]:
        """Running, sealed tasks whose gates are open and whose job names one of these images (None: any), longest
        running first, `besides` left out."""
        query: Document = {**CLAIMABLE, "_id": {"$nin": list(besides)}}
        if images is not None:
            query["job.image"] = {"$in": list(images)}
        return [_task(one) for one in self._gate.find(query, sort=[("started", 1)], limit=limit)]

    def unfinished(self) -> list[Task]:
        """The tasks that wait or run, oldest first."""
        query = {"state": {"$in": [TaskState.WAITING.value, TaskState.RUNNING.value]}}
        return [_task(document) for document in self._gate.find(query, sort=[("created", 1)])]

    def start(self, task_id: str, now: datetime) -> bool:
        """Start a waiting, sealed, uncancelled task; whether this call did."""
        guard = {"_id": task_id, "state": TaskState.WAITING.value, "sealed": True, "cancelled": False}
        return self._gate.update_one(guard, {"$set": {"state": TaskState.RUNNING.value, "started": now}})

    def complete(self, task_id: str, outcome: TaskOutcome, now: datetime) -> bool:
        """Complete a task that is not complete yet; whether this call did. A cancelled one ends as cancelled only."""
        cancelled = outcome is TaskOutcome.CANCELLED
        guard: Document = {"_id": task_id, "cancelled": cancelled}
        guard["state"] = {"$ne": TaskState.COMPLETE.value} if cancelled else TaskState.RUNNING.value
        change = {"state": TaskState.COMPLETE.value, "outcome": outcome.value, "ended": now}
        return self._gate.update_one(guard, {"$set": change})

    def set_paused(self, task_id: str, paused: bool) -> None:
        """Close or open the task's pause gate."""
        self._gate.update_one({"_id": task_id}, {"$set": {"paused": paused}})

    def close_gate(self, task_id: str) -> bool:
        """Cancel: from here on nothing is handed out; False when the task is complete."""
        guard = {"_id": task_id, "state": {"$ne": TaskState.COMPLETE.value}}
        return self._gate.update_one(guard, {"$set": {"cancelled": True}})

    def begin_upload(self, task_id: str, upload: Upload, *, quiet_since: datetime) -> bool:
        """Take the task's one place for an upload in progress, free or silent since then; whether it was taken."""
        free = {"$or": [{"upload": None}, {"upload.complete": False, "upload.touched": {"$lt": quiet_since}}]}
        guard = {"_id": task_id, "state": TaskState.WAITING.value, "cancelled": False, **free}
        return self._gate.update_one(guard, {"$set": {"upload": asdict(upload)}})

    def touch_upload(self, task_id: str, attempt: str, now: datetime) -> bool:
        """Say that this attempt goes on; False when it has lost its place."""
        guard = {"_id": task_id, "upload.attempt": attempt, "upload.complete": False, "upload.ended": False}
        return self._gate.update_one(guard, {"$set": {"upload.touched": now}}, quick=True)

    def seal(self, task_id: str, upload: Upload, fields: Sequence[str]) -> bool:
        """Make a received upload visible, whole, and close the task to others; False when it lost its place."""
        guard = {
            "_id": task_id,
            "upload.attempt": upload.attempt,
            "upload.complete": False,
            "upload.ended": False,
            "cancelled": False,
            "state": TaskState.WAITING.value,
        }
        change = {"upload": asdict(upload), "sealed": True, "fields": list(fields)}
        return self._gate.update_one(guard, {"$set": change})

    def fence_upload(self, task_id: str, attempt: str) -> bool:
        """End an attempt: it can neither go on nor be sealed, and its place is free to take. Its chunks remain."""
        guard = {"_id": task_id, "upload.attempt": attempt, "upload.complete": False}
        return self._gate.update_one(guard, {"$set": {"upload.ended": True, "upload.touched": _LONG_AGO}})

    def free_upload(self, task_id: str, attempt: str) -> bool:
        """Its chunks are gone: forget the ended attempt."""
        guard = {"_id": task_id, "upload.attempt": attempt, "upload.ended": True}
        return self._gate.update_one(guard, {"$set": {"upload": None}})


def _task(document: Document) -> Task:
    known = {name: value for name, value in document.items() if name != "_id"}
    job = dict(known["job"])
    known["job"] = Job(**{**job, "action": tuple(job["action"]), "env": dict(job["env"])})
    known["state"] = TaskState(known["state"])
    known["outcome"] = None if known["outcome"] is None else TaskOutcome(known["outcome"])
    known["fields"] = tuple(known["fields"])
    known["upload"] = None if known["upload"] is None else Upload(**known["upload"])
    return Task(id=document["_id"], **known)
