"""What client containers hear, with the names that docs/protocol.md gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from source_server.domain.chunk import Chunk, ChunkFile
from source_server.domain.features import asks_for_gpu
from source_server.domain.image import StoredImage
from source_server.domain.task import Task
from source_server.services.answers.accept import Delivered
from source_server.services.answers.answer_files import FilesMissing
from source_server.services.containers.beat import BeatAnswer
from source_server.services.containers.register import Registration
from source_server.services.dispatch.claim import Claimed
from source_server.web.answers.jobs import manifest
from source_server.web.http.errors import sentence_of, status_of

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


def claimed_job(
    task: Task, variant: str, archives: Mapping[str, StoredImage], inputs: Sequence[ChunkFile]
) -> Json:
    """The same with what a volunteer's machine decides by: whose it is, and how large the image's archive is."""
    job = task.job.in_variant(variant)
    whole = {**manifest(job, task.rows_per_chunk), "project": task.project, "task": task.id}
    limits = {"cpus": job.cpus, "memory_mb": job.memory_mb, "disk_mb": job.disk_mb}
    whole |= {name: limit for name, limit in limits.items() if limit is not None}
    if asks_for_gpu(job):
        whole["gpu"] = True
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
    said: Json = {"chunk": one.chunk, "error": sentence_of(one.refusal), "status": status_of(one.refusal)}
    if isinstance(one.refusal, FilesMissing):
        said["missing"] = list(one.refusal.missing)
    return said
