"""Jobs as JSON, with the names in which they were wished for."""

from __future__ import annotations

import json
from typing import Any

from source_server.domain.job import Job, ResultType, Variant

Json = dict[str, Any]


def manifest(job: Job, rows_per_chunk: int) -> Json:
    """What a client needs to execute a job."""
    return {
        "image": job.image,
        "action": list(job.action),
        "env": dict(job.env),
        "timeout_s": job.timeout_s,
        "rows": rows_per_chunk if rows_per_chunk > 1 else None,
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


def requires(job: Job) -> Json:
    """What a job asks of a container, in the form in which it was said."""
    return {
        one.name: {"at_least": one.at_least} if one.at_least is not None else list(one.one_of)
        for one in job.requires
    }
