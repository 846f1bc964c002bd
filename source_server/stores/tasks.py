"""Tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone

from pymongo.database import Database

from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.stores.gate import Document, Gate
from source_server.stores.task_documents import (
    NOT_CLAIMED,
    NOT_IN_RULES,
    NOT_OFFERED,
    read_task,
    read_without_contents,
    readable,
    task_document,
)

OFFERED = 500  #: tasks of one project on offer at the same time
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
TOLD: Document = {"told": {"$ne": False}}  #: the messages about its last event are in the outbox
CLAIMABLE = {
    "state": TaskState.RUNNING.value,
    "sealed": True,
    "paused": False,
    "cancelled": False,
    "ends_as": None,
}
_OLDEST_FIRST = [("created", 1), ("_id", 1)]


class Tasks:
    """One document a task; every change names the state it expects."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """By state (claims, housekeeping), and a project's running ones in their order."""
        self._gate.index([("state", 1), ("started", 1)], name="state")
        order = [("paused", 1), ("priority", -1), ("started", 1)]
        self._gate.index([("state", 1), ("project", 1), *order], name="offer")

    def add(self, task: Task) -> None:
        """Store a new task; raises AlreadyThere."""
        self._gate.insert(task_document(task))

    def ensure(self, task: Task) -> None:
        """Have the task, unless there is one of its id."""
        self._gate.put_if_absent([task_document(task)])

    def find(self, task_id: str, *, majority: bool = False) -> Task | None:
        """The task with this id, or None. `majority`: as no failover takes it back."""
        found = self._gate.find({"_id": task_id}, limit=1, majority=majority)
        return read_task(found[0]) if found else None

    def read(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id."""
        return {one["_id"]: read_task(one) for one in self._gate.find({"_id": {"$in": list(ids)}})}

    def of_projects(self, projects: Sequence[str] | None) -> list[Task]:
        """The tasks of these projects (None: of all), oldest first."""
        return [read_task(one) for one in self._gate.find(_shown(projects), sort=_OLDEST_FIRST)]

    def ids(self, projects: Sequence[str]) -> list[str]:
        """The same, only their ids, in no order."""
        return [one["_id"] for one in self._gate.find(_shown(projects), {"_id": 1})]

    def unended(self, projects: Sequence[str] | None) -> list[Task]:
        """The same, only the sealed ones that are not complete."""
        states = [TaskState.WAITING.value, TaskState.RUNNING.value]
        query = {**_shown(projects), "sealed": True, "state": {"$in": states}}
        return [read_task(one) for one in self._gate.find(query, sort=_OLDEST_FIRST)]

    def rules(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id, as `on_offer` shows them."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, NOT_IN_RULES)
        return {one["_id"]: read_without_contents(one) for one in found}

    def on_offer(self, *, limit: int) -> list[Task]:
        """Running, sealed tasks, longest running first, without what their jobs execute, fields and rounds; paused ones
        are among them, so that one which is resumed is there at once.

        Of one project at most OFFERED: those first that are not paused and have the highest priority.
        """
        query = {name: value for name, value in CLAIMABLE.items() if name != "paused"}
        few = self._gate.find(query, NOT_OFFERED, sort=[("started", 1)], limit=OFFERED + 1)
        found = few if len(few) <= OFFERED else self._fair(query, limit)
        return readable(found, read_without_contents)

    def _fair(self, query: Document, limit: int) -> list[Document]:
        """Some of each project's, so that the thousands of one hide nobody's; longest running first."""
        projects = self._gate.distinct("project", {"state": query["state"]})
        each = max(1, min(OFFERED, limit // max(1, len(projects))))
        order = [("paused", 1), ("priority", -1), ("started", 1)]
        found: list[Document] = []
        for name in projects:
            found += self._gate.find({**query, "project": name}, NOT_OFFERED, sort=order, limit=each)
        return sorted(found, key=lambda task: task["started"] or _LONG_AGO)[:limit]

    def still_on_offer(self, ids: Sequence[str]) -> dict[str, Task]:
        """Those of these tasks whose gates are open now, by id."""
        # With what their jobs execute: those that are won go out with it.
        found = self._gate.find({**CLAIMABLE, "_id": {"$in": list(ids)}}, NOT_CLAIMED)
        return {one["_id"]: read_task({**one, "fields": ()}) for one in found}

    def set_architecture(self, image: str, architecture: str) -> int:
        """The archive of this image has come: jobs that name it need that architecture; how many tasks."""
        query = {"job.image": image, "job.architecture": None, "state": {"$ne": TaskState.COMPLETE.value}}
        return self._gate.update_many(query, {"$set": {"job.architecture": architecture}})

    def last_started(self) -> str | None:
        """The running task that was started last; None when nothing runs."""
        query = {"state": TaskState.RUNNING.value}
        found = self._gate.find(query, {"_id": 1}, sort=[("started", -1)], limit=1)
        return found[0]["_id"] if found else None

    def start(self, task_id: str, now: datetime) -> bool:
        """Start a waiting, sealed, uncancelled task; whether this call did."""
        guard = {"_id": task_id, "state": TaskState.WAITING.value, "sealed": True, "cancelled": False}
        return self._gate.update_one(guard, {"$set": {"state": TaskState.RUNNING.value, "started": now}})

    def confirm_started(self, task_id: str) -> bool:
        """Whether a majority has it that the task waits no more."""
        return self._gate.confirm({"_id": task_id, "state": {"$ne": TaskState.WAITING.value}})

    def complete(self, task: Task, outcome: TaskOutcome, now: datetime, *, reacting: bool = False) -> bool:
        """Complete a task that is not complete yet; whether this call did. A cancelled one ends as cancelled only.

        Not if a round has begun, or its limits have had their word, since the task was read: then its chunks have to be
        looked at anew. `reacting`: a reaction to this outcome is to follow.
        """
        cancelled = outcome is TaskOutcome.CANCELLED
        guard: Document = {**same_rounds(task), "cancelled": cancelled, "deleting": None}
        guard["ends_as"] = None if task.ends_as is None else task.ends_as.value
        guard["state"] = {"$ne": TaskState.COMPLETE.value} if cancelled else TaskState.RUNNING.value
        change = {
            "state": TaskState.COMPLETE.value,
            "outcome": outcome.value,
            "ended": now,
            "reacting": reacting,
        }
        if task.notify:
            change["told"] = False
        return self._gate.update_one(guard, {"$set": change})

    def mark_dealt(self, task_ids: Sequence[str]) -> None:
        """A deal of these tasks has ended."""
        guard = {"_id": {"$in": list(task_ids)}, "dealt": {"$ne": True}}
        self._gate.update_many(guard, {"$set": {"dealt": True}})

    def set_paused(self, task_id: str, paused: bool) -> None:
        """Close or open the task's pause gate."""
        change: Document = {"paused": paused} if paused else {"paused": False, "paused_why": None}
        self._gate.update_one({"_id": task_id}, {"$set": change})

    def resume(self, task_id: str) -> bool:
        """Open the pause gate; False when the task is gone, or something is to be told of it first."""
        return self._gate.update_one(
            {"_id": task_id, **TOLD}, {"$set": {"paused": False, "paused_why": None}}
        )

    def note_examined(self, task_id: str, *, paused_why: str | None) -> bool:
        """Its first attempts have been looked at; with a reason the task pauses itself. Whether this call did."""
        guard = {"_id": task_id, "state": TaskState.RUNNING.value, "examined": {"$ne": True}}
        change: Document = {"examined": True}
        if paused_why is not None:
            change |= {"paused": True, "paused_why": paused_why, "told": False}
        return self._gate.update_one(guard, {"$set": change, "$inc": {"self_pauses": int("told" in change)}})

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

    def seal(
        self, task_id: str, upload: Upload, fields: Sequence[str], *, large_inputs: bool = False
    ) -> bool:
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
        return self._gate.update_one(guard, {"$set": {**change, "large_inputs": large_inputs}})

    def confirm_upload(self, task_id: str, upload: Upload) -> bool:
        """Whether a majority has it that this upload is the task's data, whole."""
        guard = {"_id": task_id, "upload.attempt": upload.attempt, "upload.complete": True}
        return self._gate.confirm(guard)

    def note_large_inputs(self, task_id: str) -> None:
        """Some chunk's input is a file: written before the first such chunk of a running task is there."""
        self._gate.update_one({"_id": task_id}, {"$set": {"large_inputs": True}})

    def fence_upload(self, task_id: str, attempt: str) -> bool:
        """End an attempt: it can neither go on nor be sealed, and its place is free to take. Its chunks remain."""
        guard = {"_id": task_id, "upload.attempt": attempt, "upload.complete": False}
        return self._gate.update_one(guard, {"$set": {"upload.ended": True, "upload.touched": _LONG_AGO}})

    def free_upload(self, task_id: str, attempt: str) -> bool:
        """Its chunks are gone: forget the ended attempt."""
        guard = {"_id": task_id, "upload.attempt": attempt, "upload.ended": True}
        return self._gate.update_one(guard, {"$set": {"upload": None}})


def _shown(projects: Sequence[str] | None) -> Document:
    """The query for the tasks of these projects (None: of all), without the server's own and those being deleted."""
    query: Document = {"validates": None, "reacts_to": None, "deleting": None}
    return query if projects is None else {**query, "project": {"$in": list(projects)}}


def same_rounds(task: Task) -> Document:
    """The guard that no round is under way, and none has begun since the task was read."""
    # Tasks that an earlier release made have no `rounds`.
    return {"_id": task.id, "round": None, "rounds": task.rounds or {"$in": [0, None]}}
