"""What goes out: domain values as JSON, with the names that docs/protocol.md and docs/reference give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.chunk import Chunk, ChunkFile
from source_server.domain.container import Container
from source_server.domain.image import StoredImage
from source_server.domain.job import Job, ResultType, Variant
from source_server.domain.project import Project
from source_server.domain.task import Task
from source_server.domain.template import template_digest
from source_server.domain.validation import Validation
from source_server.services.answers.accept import Delivered
from source_server.services.answers.answer_files import FilesMissing
from source_server.services.containers.beat import BeatAnswer
from source_server.services.containers.register import Registration
from source_server.services.dispatch.assign import DealReport
from source_server.services.dispatch.claim import Claimed
from source_server.services.tasks.tasks import TaskReport
from source_server.web.attempt_answers import reaction
from source_server.web.errors import status_of
from source_server.web.failure_answers import round_
from source_server.web.limit_bodies import shown_limits, shown_notice, shown_targets, shown_used
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


def claimed(
    answer: Claimed,
    results: Sequence[Json],
    archives: Mapping[str, StoredImage],
    inputs: Mapping[str, Sequence[ChunkFile]],
) -> Json:
    """200 of `POST /next`. `inputs`: the files of whole tasks, by task."""
    return {
        "chunks": [
            {
                "id": one.chunk.id,
                "n": one.chunk.n,
                "run": one.chunk.run,
                "input": one.chunk.input,
                "job": job_id(one.chunk.task, one.variant),
                "ticket": one.ticket,
                "ends_in_s": round(one.ends_in_s, 3),
                **_files_of(one.chunk),
            }
            for one in answer.granted
        ],
        "jobs": {
            job_id(one.chunk.task, one.variant): claimed_job(
                answer.tasks[one.chunk.task], one.variant, archives, inputs.get(one.chunk.task, ())
            )
            for one in answer.granted
            if one.chunk.task in answer.tasks
        },
        "results": list(results),
    }


def _files_of(chunk: Chunk) -> Json:
    """A chunk's own files, and its input where that is one; nothing where there are none."""
    said: Json = {"files": files(chunk.files)} if chunk.files else {}
    if chunk.input_file is not None:
        said["input_file"] = {"sha256": chunk.input_file.sha256, "bytes": chunk.input_file.bytes}
    return said


def files(some: Sequence[ChunkFile]) -> list[Json]:
    """Files as they are told of everywhere."""
    return [{"name": one.name, "sha256": one.sha256, "bytes": one.bytes} for one in some]


def job_id(task: str, variant: str = "") -> str:
    """The name of a task's main job, as it is executed in this variant."""
    return f"{task}/main.{variant}" if variant else f"{task}/main"


def manifest(job: Job, rows_per_chunk: int) -> Json:
    """What a client needs to execute a job."""
    return {
        "image": job.image,
        "action": list(job.action),
        "env": dict(job.env),
        "timeout_s": job.timeout_s,
        "rows": rows_per_chunk if rows_per_chunk > 1 else None,
    }


def claimed_job(
    task: Task, variant: str, archives: Mapping[str, StoredImage], inputs: Sequence[ChunkFile]
) -> Json:
    """The same with what a volunteer's machine decides by: whose it is, and how large the image's archive is."""
    job = task.job.in_variant(variant)
    whole = {**manifest(job, task.rows_per_chunk), "project": task.project, "task": task.id}
    limits = {"cpus": job.cpus, "memory_mb": job.memory_mb, "disk_mb": job.disk_mb}
    whole |= {name: limit for name, limit in limits.items() if limit is not None}
    if inputs:
        whole["files"] = files(inputs)
    if job.outputs:
        whole["outputs"] = list(job.outputs)
    archive = archives.get(job.image or "")
    if archive is not None:
        whole["archive"] = {"sha256": archive.sha256, "bytes": archive.bytes}
    return whole


def delivered(one: Delivered) -> Json:
    """What became of one attempt."""
    if one.refusal is None:
        return {"chunk": one.chunk, "stored": True}
    said: Json = {"chunk": one.chunk, "error": str(one.refusal), "status": status_of(one.refusal)}
    if isinstance(one.refusal, FilesMissing):
        said["missing"] = list(one.refusal.missing)
    return said


def attempt(body: AttemptBody) -> Attempt:
    """A container's attempt as a value of the domain."""
    files = tuple(ChunkFile(name=one.name, sha256=one.sha256, bytes=one.bytes) for one in body.files)
    return Attempt(**{**body.model_dump(), "outcome": Outcome(body.outcome), "files": files})


def project(one: Project) -> Json:
    """A project and its policy."""
    return {
        "id": one.id,
        "share": one.share,
        "priority": one.priority,
        "assigned_only": one.assigned_only,
        "image": one.image,
        "notify": shown_targets(one.notify),
        "validation": None if one.validation is None else rule(one.validation, one.validator),
        "created": instant(one.created),
    }


def job_wishes(job: Job) -> Json:
    """What else was said of a job, where it was."""
    said: Json = {
        "cpus": job.cpus,
        "memory_mb": job.memory_mb,
        "disk_mb": job.disk_mb,
        "inputs": dict(job.inputs) or None,
        "outputs": list(job.outputs) or None,
        "result": result_type(job.result),
        "variants": [_variant(one) for one in job.variants] or None,
        "variant_field": job.variant_field,
    }
    return {name: value for name, value in said.items() if value is not None}


def result_type(one: ResultType) -> Json | None:
    """What an answer must be; None for plain text."""
    if one == ResultType():
        return None
    return {"type": one.kind.value} | ({} if one.schema is None else {"schema": json.loads(one.schema)})


def _variant(one: Variant) -> Json:
    said = {"action": list(one.action), "env": dict(one.env), "labels": dict(one.labels)}
    return {"name": one.name, "image": one.image, **{name: value for name, value in said.items() if value}}


def reaction_jobs(one: Task) -> Json:
    """The jobs that run once the outcome is known."""
    jobs = {"success": one.success, "failure": one.failure, "after": one.after}
    return {
        name: {**manifest(job, 1), **job_wishes(job), "requires": requires(job)}
        for name, job in jobs.items()
        if job is not None
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
        "ended_why": one.ended_why,
        "limits": shown_limits(one.limits),
        "notify": shown_targets(one.notify),
        "round": round_(one.round),
        "cancelled": one.cancelled,
        "cancelled_why": one.cancelled_why,
        "sealed": one.sealed,
        "job": {**manifest(one.job, one.rows_per_chunk), **job_wishes(one.job)},
        "rows_per_chunk": one.rows_per_chunk,
        "requires": requires(one.job),
        "priority": one.priority,
        "validation": rule(one.validation, one.validator),
        "reactions": reaction_jobs(one),
        "reacting": one.reacting,
        "reacted": instant(one.reacted),
        "reacts_to": one.reacts_to,
        "max_failed": one.max_failed,
        "after_tasks": list(one.after_tasks),
        "start_wanted": one.start_wanted,
        "open_ended": one.open_ended,
        "origin": one.origin,
        "template": template_digest(one),
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
    return {
        **task(report.task),
        "used": shown_used(report.used),
        "notices": [shown_notice(one) for one in report.notices],
        "reaction_runs": [reaction(one) for one in report.reactions],
        "chunks": {"total": total, **report.chunks},
    }


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
        "built_in": one.built_in,
    }
