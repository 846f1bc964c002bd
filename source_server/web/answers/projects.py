"""Projects and rules for checking as JSON, with the names that docs/reference gives them."""

from __future__ import annotations

from typing import Any

from source_server.domain.job import Job
from source_server.domain.project import Project
from source_server.domain.timing import instant
from source_server.domain.validation import Validation
from source_server.web.answers.limits import shown_targets

Json = dict[str, Any]


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
            "files": one.with_files,
        },
        "adaptive": one.adaptive,
        "canaries": one.canaries,
    }
