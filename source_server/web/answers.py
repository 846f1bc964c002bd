"""What goes out: domain values as JSON, with the names that docs/protocol.md and docs/reference give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.container import Container
from source_server.domain.image import StoredImage
from source_server.domain.project import Project
from source_server.domain.task import Job, Task
from source_server.domain.validation import Validation
from source_server.services.accept import Delivered
from source_server.services.assign import DealReport
from source_server.services.beat import BeatAnswer
from source_server.services.claim import Claimed
from source_server.services.register import Registration
from source_server.services.tasks import TaskReport
from source_server.web.errors import status_of
from source_server.web.failure_answers import round_
from source_server.web.wire import AttemptBody, instant

Json = dict[str, Any]


def registration(made: Registration, beat_s: float) -> Json:
    """201 of `POST /containers`."""
    return {"id": made.container.id, "life": made.container.life, "key": made.key, "beat_s": beat_s}


def beat(answer: BeatAnswer, beat_s: float) -> Json:
    """200 of `POST /heartbeat`."""
    return {
        "drop": list(answer.drop),
        "lost": list(answer.lost),
        "claim_again": list(answer.claim_again),
        "config": {"beat_s": beat_s},
    }


def claimed(answer: Claimed, results: Sequence[Json], archives: Mapping[str, StoredImage]) -> Json:
    """200 of `POST /next`."""
    return {
        "chunks": [
            {
                "id": one.chunk.id,
                "n": one.chunk.n,
                "run": one.chunk.run,
                "input": one.chunk.input,
                "job": job_id(one.chunk.task),
                "ticket": one.ticket,
                "ends_in_s": round(one.ends_in_s, 3),
            }
            for one in answer.granted
        ],
        "jobs": {job_id(task.id): claimed_job(task, archives) for task in answer.tasks.values()},
        "results": list(results),
    }


def job_id(task: str) -> str:
    """The name of a task's main job."""
    return f"{task}/main"


def manifest(task: Task) -> Json:
    """What a client needs to execute a job."""
    return {
        "image": task.job.image,
        "action": list(task.job.action),
        "env": dict(task.job.env),
        "timeout_s": task.job.timeout_s,
        "rows": task.rows_per_chunk if task.rows_per_chunk > 1 else None,
    }


def claimed_job(task: Task, archives: Mapping[str, StoredImage]) -> Json:
    """The same with what a volunteer's machine decides by: whose it is, and how large the image's archive is."""
    whole = {**manifest(task), "project": task.project, "task": task.id}
    archive = archives.get(task.job.image or "")
    if archive is not None:
        whole["archive"] = {"sha256": archive.sha256, "bytes": archive.bytes}
    return whole


def delivered(one: Delivered) -> Json:
    """What became of one attempt."""
    if one.refusal is None:
        return {"chunk": one.chunk, "stored": True}
    return {"chunk": one.chunk, "error": str(one.refusal), "status": status_of(one.refusal)}


def attempt(body: AttemptBody) -> Attempt:
    """A container's attempt as a value of the domain."""
    return Attempt(**{**body.model_dump(), "outcome": Outcome(body.outcome)})


def project(one: Project) -> Json:
    """A project and its policy."""
    return {
        "id": one.id,
        "share": one.share,
        "priority": one.priority,
        "assigned_only": one.assigned_only,
        "validation": None if one.validation is None else rule(one.validation, one.validator),
        "created": instant(one.created),
    }


def requires(job: Job) -> Json:
    """What a job asks of a container, in the form in which it was said."""
    return {
        one.name: {"at_least": one.at_least} if one.at_least is not None else list(one.one_of)
        for one in job.requires
    }


def task(one: Task) -> Json:
    """A task without its counts."""
    return {
        "id": one.id,
        "project": one.project,
        "name": one.name,
        "state": one.state.value,
        "outcome": one.outcome.value if one.outcome else None,
        "paused": one.paused,
        "paused_why": one.paused_why,
        "round": round_(one.round),
        "cancelled": one.cancelled,
        "sealed": one.sealed,
        "job": manifest(one),
        "rows_per_chunk": one.rows_per_chunk,
        "requires": requires(one.job),
        "priority": one.priority,
        "validation": rule(one.validation, one.validator),
        "fields": list(one.fields),
        "rows": one.upload.rows if one.upload else 0,
        "created": instant(one.created),
        "started": instant(one.started),
        "ended": instant(one.ended),
    }


def rule(one: Validation, validator: Job | None) -> Json:
    """How answers are checked, in the fields in which it was wished for."""
    return {
        "quorum": one.quorum,
        "replicas": one.replicas,
        "most": one.most,
        "distinct": one.distinct.value,
        "same": one.same.value,
        "comparator": {
            "kind": one.comparison.value,
            "relative": one.relative,
            "absolute": one.absolute,
            "validator": None if validator is None else list(validator.action),
        },
        "adaptive": one.adaptive,
        "canaries": one.canaries,
    }


def task_report(report: TaskReport) -> Json:
    """A task with its chunks counted by state."""
    total = report.task.upload.chunks if report.task.upload else 0
    return {**task(report.task), "chunks": {"total": total, **report.chunks}}


def deal(report: DealReport) -> Json:
    """What a deal did and what is left."""
    return {
        "id": report.deal.id,
        "done": report.deal.done,
        "tasks": list(report.deal.tasks),
        "dealt": dict(report.deal.dealt),
        "holding": dict(report.holding),
        "remaining": report.remaining,
        "unassignable": report.unassignable,
    }


def container(one: Container, pseudonyms: Mapping[str, str], *, own: bool) -> Json:
    """A container's record; the host's name is its owner's and the operator's to see."""
    return {
        "id": one.id,
        "host": {"id": one.host.id, "name": one.host.name} if own else {"id": one.host.id},
        "account": pseudonyms.get(one.account),
        "state": one.state.value,
        "life": one.life,
        "registered": instant(one.registered),
        "last_seen": instant(one.last_seen),
        "labels": dict(one.labels),
        "resources": dict(one.resources),
        "runtimes": list(one.runtimes),
        "image": one.image,
        "policy": {
            "projects": None if one.projects is None else list(one.projects),
            "shares": dict(one.shares),
        },
        "self_test": one.self_test,
        "cannot": dict(one.cannot),
        "beat": one.beat,
        "held": sum(one.held.values()),
        "paused": one.paused,
        "trusted": one.trusted,
    }
