"""A scientist's wishes about checking answers, from the wire's shape to the domain's rule."""

from __future__ import annotations

from source_server.domain.job import Job
from source_server.domain.validation import Comparison, Distinct, Same, Validation
from source_server.web.bodies.wishes import ValidationBody

SPARE = 3  #: times the quorum that may be tried, unless the scientist says otherwise
MOST = 16


def validation(body: ValidationBody) -> Validation:
    """The rule that these wishes make."""
    replicas = body.quorum if body.replicas is None else body.replicas
    most = min(MOST, max(replicas, SPARE * body.quorum)) if body.most is None else body.most
    return Validation(
        quorum=body.quorum,
        replicas=replicas,
        most=1 if body.quorum == 1 else most,
        distinct=Distinct(body.distinct),
        same=Same(body.same),
        comparison=Comparison(body.comparator.kind),
        with_files=body.comparator.validator is not None and body.comparator.validator.files,
        relative=body.comparator.relative,
        absolute=body.comparator.absolute,
        adaptive=body.adaptive,
        canaries=body.canaries,
    )


def validator(body: ValidationBody) -> Job | None:
    """The project's command that compares answers, if there is one."""
    wished = body.comparator.validator
    if wished is None:
        return None
    return Job(
        action=tuple(wished.action),
        own_command=not wished.action,
        image=wished.image,
        timeout_s=wished.timeout_s,
        disk_mb=wished.disk_mb,
    )
