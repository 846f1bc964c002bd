"""What somebody wants computed, before it is a task; and what makes a wish that could never be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from source_server.domain.job import MAX_JOB, BadAction, Job, job_bytes, placeholders
from source_server.domain.limits import Limits
from source_server.domain.notice import Target
from source_server.domain.reactions import RESULTS
from source_server.domain.refusal import BadInput
from source_server.domain.validation import Distinct, Validation

#: What a reaction's action may have placeholders for: texts of the summary that is its input.
OF_A_SUMMARY = ("task", "name", "project", "outcome")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A task that somebody wants."""

    name: str
    job: Job
    rows_per_chunk: int = 1
    priority: int = 0
    validation: Validation | None = None  #: None: the project's
    validator: Job | None = None
    id: str | None = None  #: chosen by who makes it; None: a random one
    digest: str | None = None  #: SHA-256 of all that was said: the same id and digest is the same task
    success: Job | None = None
    failure: Job | None = None
    after: Job | None = None
    max_failed: int = 0
    after_tasks: tuple[str, ...] = ()
    open_ended: bool = False
    limits: Limits | None = None
    notify: tuple[Target, ...] | None = None  #: who is told; None: whom the project names
    origin: str | None = None  #: the receiver that wants it


def require_sound(wish: Wish) -> None:
    """Raises BadInput, with a sentence, for what could never run."""
    reactions = [one for one in (wish.success, wish.failure, wish.after) if one is not None]
    for job in (wish.job, wish.validator, *reactions):
        if job is not None and (size := job_bytes(job)) > MAX_JOB:
            raise BadInput(f"action, env and variants have together {size} bytes, more than {MAX_JOB}.")
    if wish.open_ended and wish.rows_per_chunk > 1:
        raise BadInput("An open-ended task has rows_per_chunk 1: each row is a chunk when it comes.")
    if wish.validator is not None and _asked(wish.validator.action):
        raise BadInput("A validator's action has no {field} placeholders: what it compares comes on stdin.")
    for job in reactions:
        if strange := _asked([*job.action, *_names(job)]) - set(OF_A_SUMMARY):
            raise BadInput(
                f"A reaction's placeholders are {', '.join(OF_A_SUMMARY)}; there is no {min(strange)!r}."
            )
        _require_plain_inputs(job)
    needed = needed_fields(wish.job)
    if wish.rows_per_chunk > 1 and needed:
        raise BadInput(
            "An action with {field} placeholders needs rows_per_chunk 1: many rows come on stdin only. "
            "So do inputs with them, and variant_field."
        )


def _require_plain_inputs(job: Job) -> None:
    if _asked(_names(job)):
        raise BadInput("A reaction's inputs have no {field} placeholders: name each file as it is.")
    if any(name.casefold() == RESULTS for name, _ in job.inputs):
        raise BadInput(f"A reaction gets the table of results as {RESULTS}: name the other file differently.")


def needed_fields(job: Job) -> set[str]:
    """The fields that every row of the job's data must have; raises BadInput for a stray brace."""
    actions = [*job.action, *(item for one in job.variants for item in one.action)]
    named = set() if job.variant_field is None else {job.variant_field}
    return _asked([*actions, *_names(job)]) | named


def _names(job: Job) -> list[str]:
    return [text for pair in job.inputs for text in pair]


def _asked(texts: Sequence[str]) -> set[str]:
    try:
        return placeholders(texts)
    except BadAction as error:
        raise BadInput(str(error)) from error


def require_variants(job: Job, rule: Validation) -> None:
    """Raises BadInput where answers of different variants are to be compared, and there are not enough of them."""
    if rule.distinct is not Distinct.VARIANT or not rule.checks:
        return
    if job.variant_field is not None:
        raise BadInput(
            "Answers of different variants are compared: then no row names its own (variant_field)."
        )
    if len(job.variants) < rule.quorum:
        raise BadInput(
            f"Answers of {rule.quorum} variants are to agree, and the job has {len(job.variants)}."
        )
