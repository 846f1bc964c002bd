"""What of a task is fixed before any data: the part that a project's owner will sign.

Receivers and reruns fill a template with data and change nothing in it. So two tasks with the same template execute the
same programs in the same images, with the same files and within the same limits, whatever their data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from source_server.domain.job import Job
from source_server.domain.task import Task

VERSION = 1


def template(task: Task) -> dict[str, Any]:
    """The template as JSON values: image digests, actions, environments, limits, the hash of every file, reactions."""
    jobs = {
        "main": task.job,
        "success": task.success,
        "failure": task.failure,
        "after": task.after,
        "validator": task.validator,
    }
    return {
        "version": VERSION,
        "project": task.project,
        "jobs": {name: _job(job) for name, job in jobs.items() if job is not None},
    }


def template_digest(task: Task) -> str:
    """SHA-256 of the template's canonical JSON (sorted names, no blanks, ASCII), as hex."""
    text = json.dumps(template(task), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _job(job: Job) -> dict[str, Any]:
    """A job without what the server works out by itself, and without what was not asked for: so that a field that a
    later release adds changes no template that does not use it."""
    said = asdict(job)
    del said["own_command"], said["architecture"]
    said["result"] = {"kind": job.result.kind.value, "schema": job.result.schema}
    said["requires"] = [_given(asdict(one)) for one in job.requires]
    said["variants"] = [
        _given({name: value for name, value in asdict(one).items() if name != "architecture"})
        for one in job.variants
    ]
    if said["result"] == {"kind": "text", "schema": None}:
        del said["result"]
    return _given(said)


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value not in (None, (), [], {})}
