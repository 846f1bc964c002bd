"""Tasks as documents, and back: whole, or without what makes them large."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict

from source_server.domain.job import Job
from source_server.domain.rounds import Round, Which
from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.domain.validation import Comparison, Distinct, Same, Validation
from source_server.stores.appends import read_appending
from source_server.stores.gate import Document
from source_server.stores.job_documents import job_document, read_job
from source_server.stores.limit_documents import (
    limits_document,
    read_limits,
    read_targets,
    targets_document,
)

log = logging.getLogger(__name__)

JOBS = ("job", "validator", "success", "failure", "after")
_READ_JOBS = ("job", "validator")  #: of what is on offer: what a container must have to fit
_BESIDE = ("success", "failure", "after", "fields", "round", "appending")
_UNREAD = (
    *(f"{job}.{part}" for job in _READ_JOBS for part in ("action", "env", "variants.action", "variants.env")),
    *_BESIDE,
)
#: What most readers of a task have no use for, and what makes it large.
NOT_IN_RULES = dict.fromkeys(_UNREAD, 0)
NOT_OFFERED = {**NOT_IN_RULES, "job.result.schema": 0}  #: nor do claims look at answers
CONTENTS = {**NOT_OFFERED, "validator.result.schema": 0}  #: nor does housekeeping
_EMPTIED = (
    f"{job}.{part}" for job in JOBS for part in ("action", "env", "variants", "inputs", "result.schema")
)
#: The same, but for one thing: which jobs there are is left.
JOBS_CONTENTS = dict.fromkeys((*_EMPTIED, "fields", "round", "appending"), 0)
NOT_CLAIMED = dict.fromkeys((*_BESIDE, "job.result.schema"), 0)


def task_document(task: Task) -> Document:
    """How a task is stored."""
    document = {**asdict(task), "_id": task.id}
    del document["id"]
    for name in ("state", "outcome", "ends_as"):
        chosen = getattr(task, name)
        document[name] = None if chosen is None else chosen.value
    jobs = {name: job for name in JOBS if (job := getattr(task, name)) is not None}
    document |= {name: job_document(job) for name, job in jobs.items()}
    document |= {"limits": limits_document(task.limits), "notify": targets_document(task.notify)}
    return {**document, **rule_documents(task.validation, task.validator)}


def rule_documents(validation: Validation | None, validator: Job | None) -> Document:
    """How a rule for checking is stored, in the two fields of a project or a task."""
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


def read_task(document: Document) -> Task:
    """A stored task."""
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
        known["validation"] = read_validation(known["validation"])
    return Task(id=document["_id"], **known)


def read_without_contents(document: Document) -> Task:
    """A stored task whose contents were left out: NOT_IN_RULES, or more."""
    return read_task(_without_contents(document))


def readable(documents: Iterable[Document], read: Callable[[Document], Task] = read_task) -> list[Task]:
    """These tasks without those that cannot be read, each of which is logged: one must not hide all others."""
    found = []
    for document in documents:
        try:
            found.append(read(document))
        except Exception:
            log.exception("stored task cannot be read", extra={"task": document.get("_id")})
    return found


def _round(document: Document) -> Round:
    whole = {**document, "which": Which(document["which"]), "chunks": tuple(document["chunks"])}
    return Round(**whole)


def read_validation(document: Document) -> Validation:
    """A stored rule for checking."""
    chosen = {
        "distinct": Distinct(document["distinct"]),
        "same": Same(document["same"]),
        "comparison": Comparison(document["comparison"]),
    }
    return Validation(**{**document, **chosen})
