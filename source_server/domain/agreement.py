"""The verdict on a chunk's candidates: which answer is right, who agreed with it, and who did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from source_server.domain.chunk import Candidate
from source_server.domain.validation import Distinct, Validation

Agree = Callable[[Candidate, Candidate], bool]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`accepted` is the right answer's result id, or None: then at least `missing` more answers are needed."""

    accepted: str | None = None
    agreed: tuple[str, ...] = ()  #: results within tolerance of the accepted one
    disagreed: tuple[str, ...] = ()  #: the others; nobody is blamed before there is an accepted one
    missing: int = 0


def decide(candidates: Sequence[Candidate], rule: Validation, agree: Agree) -> Decision:
    """The earliest candidate with Q - 1 others within tolerance of it is accepted.

    A tolerance is not transitive, so all are measured against that one candidate and not against each other.
    """
    best = 0
    for one in candidates:
        others = [other for other in candidates if other is not one and agree(one, other)]
        if 1 + len(others) >= rule.quorum:
            with_it = {other.result for other in others}
            return Decision(
                accepted=one.result,
                agreed=tuple(other.result for other in others),
                disagreed=tuple(
                    other.result for other in candidates if other is not one and other.result not in with_it
                ),
            )
        best = max(best, 1 + len(others))
    return Decision(missing=rule.quorum - best)


def same_answer(one: Candidate, other: Candidate) -> bool:
    """Byte for byte."""
    return one.digest == other.digest


def identity(rule: Validation, *, account: str, host: str, container: str, variant: str = "") -> str:
    """What may give only one of a chunk's answers."""
    named = {
        Distinct.ACCOUNT: account,
        Distinct.HOST: f"{account}/{host}",
        Distinct.CONTAINER: container,
        Distinct.VARIANT: variant,
    }
    return named[rule.distinct]


def gave(rule: Validation, candidates: Sequence[Candidate], new: Candidate) -> bool:
    """Whether the giver of a new candidate has given one of these already, as `distinct` sees it."""
    return _of(rule, new) in {_of(rule, known) for known in candidates}


def _of(rule: Validation, one: Candidate) -> str:
    return identity(rule, account=one.account, host=one.host, container=one.container, variant=one.variant)
