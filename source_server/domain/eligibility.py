"""Whether a container may take one more attempt at a chunk, beside those who have tried or are trying."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from source_server.domain.agreement import identity
from source_server.domain.chunk import Candidate, Chunk, Lease
from source_server.domain.validation import Distinct, Same, Validation


class Bar(str, Enum):
    """Why not."""

    HOLDS_IT = "this container holds it already"
    ANSWERED = "this account, host or container has given one of its answers, or is about to"
    VARIANT = "it cannot run the variant of the job that is wanted, or its variants have all been tried"
    PLATFORM = "its other answers come from another platform"
    UNPROVED = "its last answer has to come from an account with a long record of agreement"
    FAILED_HERE = "it failed on this host, and others have not tried it"
    KEPT = "it is kept for containers that the operator trusts, and one that fits is live"


@dataclass(frozen=True, kw_only=True)
class Taker:
    """A container as far as it matters for one chunk of a task."""

    container: str
    host: str
    account: str
    platform: str = ""  #: see `platform`
    established: bool = False  #: whether its account has a long record of agreement
    variants: tuple[str, ...] = ()  #: of the job: those that it can run; none where the job has none
    preferred: bool = False  #: the task is a reaction, and this is one of those that reactions go to first


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """The containers that could take the task's chunks now."""

    takers: tuple[Taker, ...] = ()

    @property
    def hosts(self) -> frozenset[str]:
        """Their hosts."""
        return frozenset(one.host for one in self.takers)


def platform(rule: Validation, labels: dict[str, str | float]) -> str:
    """What a container's labels say of the platform on which its answers are comparable."""
    if rule.same is Same.ANY:
        return ""
    arch = str(labels.get("arch", "unknown"))
    return arch if rule.same is Same.ARCH else f"{arch}/{labels.get('cpu_family', 'unknown')}"


def bar(chunk: Chunk, taker: Taker, rule: Validation, crowd: Crowd) -> Bar | None:
    """What keeps this container from taking this chunk, or None."""
    if any(held.container == taker.container for held in chunk.leases):
        return Bar.HOLDS_IT
    if taker.variants and not open_variants(chunk, taker, rule):
        return Bar.VARIANT
    if rule.quorum > 1 and (found := _quorum_bar(chunk, taker, rule, crowd)):
        return found
    if _is_kept(chunk, taker, rule, crowd):
        return Bar.KEPT
    if _failed_with(chunk, taker) and _another_could(chunk, taker, rule, crowd):
        return Bar.FAILED_HERE
    return None


def _is_kept(chunk: Chunk, taker: Taker, rule: Validation, crowd: Crowd) -> bool:
    """Whether the next attempt is for those that are preferred: while there are any, and they can make it."""
    if taker.preferred:
        return False
    # Under a quorum they may be too few for it: what none of them can give, or may give, any more is for the others.
    return any(
        one.preferred and (rule.quorum == 1 or _quorum_bar(chunk, one, rule, crowd) is None)
        for one in crowd.takers
    )


def open_variants(chunk: Chunk, taker: Taker, rule: Validation) -> list[str]:
    """The job's variants in which this container could make the next attempt at this chunk."""
    if chunk.variant is not None:
        return [one for one in taker.variants if one == chunk.variant]
    if rule.distinct is not Distinct.VARIANT or rule.quorum == 1:
        return list(taker.variants)
    tried = {one.variant for one in _out(chunk)}
    return [one for one in taker.variants if one not in tried]


def _quorum_bar(chunk: Chunk, taker: Taker, rule: Validation, crowd: Crowd) -> Bar | None:
    found = _beside_the_others(chunk, taker, rule, crowd)
    if found is not None or taker.established:
        return found
    # One of the Q is to be an established account, where one is there to take it: the last place is kept for it.
    out = _out(chunk)
    if any(one.established for one in out) or len(out) < rule.quorum - 1:
        return None
    proved = (one for one in crowd.takers if one.established and not _failed_with(chunk, one))
    could = any(_beside_the_others(chunk, one, rule, crowd) is None for one in proved)
    return Bar.UNPROVED if could else None


def _beside_the_others(chunk: Chunk, taker: Taker, rule: Validation, crowd: Crowd) -> Bar | None:
    """Whether an answer of this container would count beside those that are given or under way."""
    if _gave_one(chunk, taker, rule):
        return Bar.ANSWERED
    platforms = {one.platform for one in _out(chunk)}
    if not platforms or taker.platform in platforms:
        return None
    # A platform that nobody else is there for, or that one of them made up, must not keep all others out.
    could = any(one.platform in platforms and not _gave_one(chunk, one, rule) for one in crowd.takers)
    return Bar.PLATFORM if could else None


def _gave_one(chunk: Chunk, taker: Taker, rule: Validation) -> bool:
    if rule.distinct is Distinct.VARIANT:
        return bool(taker.variants) and not open_variants(chunk, taker, rule)
    me = identity(rule, account=taker.account, host=taker.host, container=taker.container)
    return any(
        identity(rule, account=one.account, host=one.host, container=one.container) == me
        for one in _out(chunk)
    )


def _out(chunk: Chunk) -> tuple[Lease | Candidate, ...]:
    return (*chunk.leases, *chunk.candidates)


def _failed_with(chunk: Chunk, taker: Taker) -> bool:
    return any((one.account, one.host) == (taker.account, taker.host) for one in chunk.failed)


def _another_could(chunk: Chunk, taker: Taker, rule: Validation, crowd: Crowd) -> bool:
    return any(
        not _failed_with(chunk, one) and (rule.quorum == 1 or _quorum_bar(chunk, one, rule, crowd) is None)
        for one in crowd.takers
        # For those that are preferred the others are none: it is kept from them.
        if one.preferred or not taker.preferred
    )
