"""Projects and tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

from pymongo.database import Database

from source_server.domain.job import Job
from source_server.domain.notice import Target
from source_server.domain.project import Project
from source_server.domain.rounds import Round, Which
from source_server.domain.share import HALF_LIFE
from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.domain.validation import Comparison, Distinct, Same, Validation
from source_server.stores.appends import read_appending
from source_server.stores.gate import Document, Gate
from source_server.stores.job_documents import job_document, read_job
from source_server.stores.limit_documents import (
    limits_document,
    read_limits,
    read_targets,
    targets_document,
)

log = logging.getLogger(__name__)

OFFERED = 500  #: tasks of one project on offer at the same time
JOBS = ("job", "validator", "success", "failure", "after")
_READ_JOBS = ("job", "validator")  #: of what is on offer: what a container must have to fit
_BESIDE = ("success", "failure", "after", "fields", "round", "appending")
_UNREAD = (
    *(f"{job}.{part}" for job in _READ_JOBS for part in ("action", "env", "variants.action", "variants.env")),
    *_BESIDE,
)
_CONTENTS = dict.fromkeys(_UNREAD, 0)  #: what most readers of a task have no use for, and what makes it large
_NOT_OFFERED = {**_CONTENTS, "job.result.schema": 0}  #: nor do claims look at answers
CONTENTS = {**_NOT_OFFERED, "validator.result.schema": 0}  #: nor does housekeeping
_EMPTIED = (
    f"{job}.{part}" for job in JOBS for part in ("action", "env", "variants", "inputs", "result.schema")
)
#: The same, but for one thing: which jobs there are is left.
JOBS_CONTENTS = dict.fromkeys((*_EMPTIED, "fields", "round", "appending"), 0)
_NOT_CLAIMED = dict.fromkeys((*_BESIDE, "job.result.schema"), 0)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
TOLD: Document = {"told": {"$ne": False}}  #: the messages about its last event are in the outbox
CLAIMABLE = {
    "state": TaskState.RUNNING.value,
    "sealed": True,
    "paused": False,
    "cancelled": False,
    "ends_as": None,
}


class Projects:
    """A project's name is its id; it belongs to the account that made it."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "projects")

    def add(self, project: Project) -> None:
        """Store a new project; raises AlreadyThere."""
        document = {**asdict(project), **_rule_documents(project.validation, project.validator)}
        self._gate.insert({"_id": document.pop("id"), **document})

    def find(self, name: str) -> Project | None:
        """The project of this name, or None."""
        return self.read([name]).get(name)

    def read(self, names: Sequence[str]) -> dict[str, Project]:
        """The projects of these names, by name; unknown ones are absent."""
        found = self._gate.find({"_id": {"$in": list(names)}})
        return {one["_id"]: _project(one) for one in found}

    def find_owner(self, name: str) -> str | None:
        """The account that owns the project, or None where there is no such project."""
        found = self.find(name)
        return None if found is None else found.owner

    def names(self, owner: str | None) -> list[str]:
        """The projects of this account (None: of all), by name."""
        query = {} if owner is None else {"owner": owner}
        return [document["_id"] for document in self._gate.find(query, {"_id": 1}, sort=[("_id", 1)])]

    def count(self, owner: str, *, at_most: int) -> int:
        """How many projects the account has, counting up to `at_most`."""
        return self._gate.count({"owner": owner}, limit=at_most)

    def set_rule(self, name: str, validation: Validation | None, validator: Job | None) -> bool:
        """How answers of its later tasks are checked; False when there is none of this name."""
        return self._gate.update_one({"_id": name}, {"$set": _rule_documents(validation, validator)})

    def set_targets(self, name: str, targets: Sequence[Target]) -> None:
        """Who is told about its later tasks."""
        self._gate.update_one({"_id": name}, {"$set": {"notify": targets_document(targets)}})

    def change(self, name: str, **fields_: Any) -> bool:
        """Set these fields of the project; False when there is none of this name."""
        return self._gate.update_one({"_id": name}, {"$set": fields_})

    def use(self, name: str, seconds: float, now: datetime, *, at_least: float) -> None:
        """Add machine time to a project's usage, which decays; a newcomer's begins at `at_least`."""
        age = {"$subtract": [now, {"$ifNull": ["$usage_as_of", now]}]}
        halves = {"$divide": [{"$max": [age, 0]}, HALF_LIFE / timedelta(milliseconds=1)]}
        left = {"$multiply": [{"$ifNull": ["$usage", at_least]}, {"$pow": [0.5, halves]}]}
        change = {"usage": {"$add": [left, seconds]}, "usage_as_of": now}
        self._gate.update_one({"_id": name}, [{"$set": change}], quick=True)


def _project(document: Document) -> Project:
    known = {name: value for name, value in document.items() if name != "_id"}
    known["validation"] = _validation(known["validation"]) if known.get("validation") else None
    known["validator"] = read_job(known["validator"]) if known.get("validator") else None
    known["notify"] = read_targets(known.get("notify"))
    return Project(id=document["_id"], **known)


class Tasks:
    """One document a task; every change names the state it expects."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """By state (claims, housekeeping), a project's running ones in their order, by project (lists, exports)."""
        self._gate.index([("state", 1), ("started", 1)], name="state")
        order = [("paused", 1), ("priority", -1), ("started", 1)]
        self._gate.index([("state", 1), ("project", 1), *order], name="offer")
        self._gate.index([("project", 1), ("created", 1)], name="project")

    def add(self, task: Task) -> None:
        """Store a new task; raises AlreadyThere."""
        self._gate.insert(_document(task))

    def ensure(self, task: Task) -> None:
        """Have the task, unless there is one of its id."""
        self._gate.put_if_absent([_document(task)])

    def find(self, task_id: str) -> Task | None:
        """The task with this id, or None."""
        found = self._gate.find_one({"_id": task_id})
        return None if found is None else _task(found)

    def read(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id."""
        return {one["_id"]: _task(one) for one in self._gate.find({"_id": {"$in": list(ids)}})}

    def of_projects(self, projects: Sequence[str] | None) -> list[Task]:
        """The tasks of these projects (None: of all), oldest first."""
        query: dict[str, Any] = {"validates": None, "reacts_to": None, "deleting": None}
        if projects is not None:
            query["project"] = {"$in": list(projects)}
        return [_task(document) for document in self._gate.find(query, sort=[("created", 1), ("_id", 1)])]

    def rules(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, by id, as `on_offer` shows them."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, _CONTENTS)
        return {one["_id"]: _task(_without_contents(one)) for one in found}

    def on_offer(self, *, limit: int) -> list[Task]:
        """Running, sealed tasks, longest running first, without what their jobs execute, fields and rounds; paused ones
        are among them, so that one which is resumed is there at once.

        Of one project at most OFFERED: those first that are not paused and have the highest priority.
        """
        query = {name: value for name, value in CLAIMABLE.items() if name != "paused"}
        few = self._gate.find(query, _NOT_OFFERED, sort=[("started", 1)], limit=OFFERED + 1)
        found = few if len(few) <= OFFERED else self._fair(query, limit)
        return readable(_without_contents(document) for document in found)

    def _fair(self, query: Document, limit: int) -> list[Document]:
        """Some of each project's, so that the thousands of one hide nobody's; longest running first."""
        projects = self._gate.distinct("project", {"state": query["state"]})
        each = max(1, min(OFFERED, limit // max(1, len(projects))))
        order = [("paused", 1), ("priority", -1), ("started", 1)]
        found: list[Document] = []
        for name in projects:
            found += self._gate.find({**query, "project": name}, _NOT_OFFERED, sort=order, limit=each)
        return sorted(found, key=lambda task: task["started"] or _LONG_AGO)[:limit]

    def still_on_offer(self, ids: Sequence[str]) -> dict[str, Task]:
        """Those of these tasks whose gates are open now, by id."""
        # With what their jobs execute: those that are won go out with it.
        found = self._gate.find({**CLAIMABLE, "_id": {"$in": list(ids)}}, _NOT_CLAIMED)
        return {one["_id"]: _task({**one, "fields": ()}) for one in found}

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

    def complete(self, task: Task, outcome: TaskOutcome, now: datetime, *, reacting: bool = False) -> bool:
        """Complete a task that is not complete yet; whether this call did. A cancelled one ends as cancelled only.

        Not if a round has begun since the task was read: then its chunks have to be looked at anew. `reacting`: a
        reaction to this outcome is to follow.
        """
        cancelled = outcome is TaskOutcome.CANCELLED
        guard: Document = {**same_rounds(task), "cancelled": cancelled, "deleting": None}
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


def same_rounds(task: Task) -> Document:
    """The guard that no round is under way, and none has begun since the task was read."""
    # Tasks that an earlier release made have no `rounds`.
    return {"_id": task.id, "round": None, "rounds": task.rounds or {"$in": [0, None]}}


def _document(task: Task) -> Document:
    document = {**asdict(task), "_id": task.id}
    del document["id"]
    for name in ("state", "outcome", "ends_as"):
        chosen = getattr(task, name)
        document[name] = None if chosen is None else chosen.value
    jobs = {name: job for name in JOBS if (job := getattr(task, name)) is not None}
    document |= {name: job_document(job) for name, job in jobs.items()}
    document |= {"limits": limits_document(task.limits), "notify": targets_document(task.notify)}
    return {**document, **_rule_documents(task.validation, task.validator)}


def _rule_documents(validation: Validation | None, validator: Job | None) -> Document:
    documents: Document = {"validation": None, "validator": None}
    if validation is not None:
        chosen = {name: getattr(validation, name).value for name in ("distinct", "same", "comparison")}
        documents["validation"] = {**asdict(validation), **chosen}
    if validator is not None:
        documents["validator"] = job_document(validator)
    return documents


def _without_contents(document: Document) -> Document:
    jobs = {name: document[name] for name in JOBS if document.get(name) is not None}
    emptied = {name: {**job, "action": (), "env": ()} for name, job in jobs.items()}
    return {**document, **emptied, "fields": ()}


def _task(document: Document) -> Task:
    known = {name: value for name, value in document.items() if name != "_id"}
    for name in JOBS:
        known[name] = None if known.get(name) is None else read_job(known[name])
    known["after_tasks"] = tuple(known.get("after_tasks", ()))
    known["appending"] = read_appending(known["appending"]) if known.get("appending") else None
    known["state"] = TaskState(known["state"])
    known["outcome"] = None if known["outcome"] is None else TaskOutcome(known["outcome"])
    known["round"] = None if known.get("round") is None else _round(known["round"])
    known["fields"] = tuple(known["fields"])
    known["limits"], known["notify"] = read_limits(known.get("limits")), read_targets(known.get("notify"))
    known["ends_as"] = TaskOutcome(known["ends_as"]) if known.get("ends_as") else None
    known["upload"] = None if known["upload"] is None else Upload(**known["upload"])
    if "validation" in known:
        known["validation"] = _validation(known["validation"])
    return Task(id=document["_id"], **known)


def read_task(document: Document) -> Task:
    """A stored task, read with all its fields."""
    return _task(document)


def readable(documents: Iterable[Document]) -> list[Task]:
    """These tasks without those that cannot be read, each of which is logged: one must not hide all others."""
    found = []
    for document in documents:
        try:
            found.append(_task(document))
        except Exception:
            log.exception("stored task cannot be read", extra={"task": document.get("_id")})
    return found


def read_without_contents(document: Document) -> Task:
    """A stored task whose contents were left out, CONTENTS or JOBS_CONTENTS."""
    return _task(_without_contents(document))


def _round(document: Document) -> Round:
    whole = {**document, "which": Which(document["which"]), "chunks": tuple(document["chunks"])}
    return Round(**whole)


def _validation(document: Document) -> Validation:
    chosen = {
        "distinct": Distinct(document["distinct"]),
        "same": Same(document["same"]),
        "comparison": Comparison(document["comparison"]),
    }
    return Validation(**{**document, **chosen})
