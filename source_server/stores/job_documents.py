"""Jobs as documents, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from source_server.domain.job import Job, ResultKind, ResultType, Variant
from source_server.domain.requirements import Requirement
from source_server.stores.gate import Document


def job_document(job: Job) -> Document:
    """How a job is stored; names that a scientist chose are values there, never keys."""
    return {
        **asdict(job),
        "env": _pairs(job.env),
        "inputs": [list(pair) for pair in job.inputs],
        "outputs": list(job.outputs),
        "result": {"kind": job.result.kind.value, "schema": job.result.schema},
        "variants": [
            {**asdict(one), "env": _pairs(one.env), "labels": _pairs(one.labels)} for one in job.variants
        ],
    }


def read_job(document: Document) -> Job:
    """A stored job; one whose contents were left out has none."""
    requires = tuple(
        Requirement(**{**one, "one_of": tuple(one["one_of"])}) for one in document.get("requires", ())
    )
    result = document.get("result") or {"kind": ResultKind.TEXT.value}
    whole = {
        **document,
        "action": tuple(document["action"]),
        "env": dict(document["env"]),
        "requires": requires,
        "inputs": tuple((name, sha256) for name, sha256 in document.get("inputs", ())),
        "outputs": tuple(document.get("outputs", ())),
        "result": ResultType(kind=ResultKind(result["kind"]), schema=result.get("schema")),
        "variants": tuple(_variant(one) for one in document.get("variants", ())),
    }
    return Job(**whole)


def _variant(document: dict[str, Any]) -> Variant:
    contents = {
        "action": tuple(document.get("action", ())),
        "env": dict(document.get("env", ())),
        "labels": dict(document.get("labels", ())),
    }
    return Variant(**{**document, **contents})


def _pairs(named: dict[str, str]) -> list[list[str]]:
    return [[name, value] for name, value in named.items()]
