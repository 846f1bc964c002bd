"""A scientist's wish for a task, from the wire's shape to the domain's: of a request, or of a receiver's template."""

from __future__ import annotations

import hashlib
import json

from source_server.domain.wish import Wish
from source_server.web.bodies import checking, wishes
from source_server.web.bodies.job import job
from source_server.web.bodies.limits import limits, targets


def wish(project: str, body: wishes.TaskBody) -> Wish:
    """The wish that this body makes; its digest tells two bodies of one id apart."""
    said = body.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Wish(
        id=body.id,
        digest=hashlib.sha256(json.dumps([project, said], sort_keys=True).encode()).hexdigest(),
        name=body.name or project,
        job=job(body),
        rows_per_chunk=body.rows_per_chunk,
        priority=body.priority,
        validation=None if body.validation is None else checking.validation(body.validation),
        validator=None if body.validation is None else checking.validator(body.validation),
        success=None if body.success is None else job(body.success),
        failure=None if body.failure is None else job(body.failure),
        after=None if body.after is None else job(body.after),
        max_failed=body.max_failed,
        after_tasks=tuple(dict.fromkeys(body.after_tasks)),
        open_ended=body.open_ended,
        limits=limits(body.limits),
        notify=None if body.notify is None else targets(body.notify),
    )
