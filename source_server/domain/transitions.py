"""The table of what may happen to a chunk in which state, and what it is afterwards.

Nothing else decides about a chunk: every write to one is a value made here from the value that was read, and the
store applies it only if the chunk is still at the revision that was read. The time is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from source_server.domain.chunk import (
    MAX_LISTED,
    OPEN_STATES,
    Candidate,
    Chunk,
    ChunkState,
    Failure,
    Holder,
    Lease,
)
from source_server.domain.quarantine import Fleet, must_set_aside

FIRST_DELAY = timedelta(seconds=10)  #: pause after the first failure; doubles with each further one
LONGEST_DELAY = timedelta(hours=1)


class WrongState(Exception):
    """The event cannot happen to a chunk in this state; the write is not made."""


Rule = Callable[[Chunk], bool]


def _is_open(chunk: Chunk) -> bool:
    return chunk.state in OPEN_STATES


def _may_lease(chunk: Chunk) -> bool:
    return chunk.state is ChunkState.READY and chunk.wanted > 0 and chunk.result is None


def _may_hedge(chunk: Chunk) -> bool:
    # One more than the replicas still wanted: with a hedge out already, there are more leases than that.
    out = len(chunk.leases) + len(chunk.candidates)
    return chunk.state is ChunkState.LEASED and chunk.result is None and out == chunk.replicas < MAX_LISTED


def _may_test(chunk: Chunk) -> bool:
    return chunk.state is ChunkState.DONE and chunk.result is not None and len(chunk.leases) < MAX_LISTED


def _undecided(chunk: Chunk) -> bool:
    # Delayed, quarantined, expired: a late good result is never refused.
    return chunk.result is None and chunk.state is not ChunkState.CANCELLED


#: event -> may it happen to this chunk? The whole table "state x event -> state, guard".
MAY: dict[str, Rule] = {
    "assign": lambda chunk: chunk.state is ChunkState.READY and chunk.assigned is None,
    "unassign": lambda chunk: chunk.assigned is not None,
    "lease": _may_lease,
    "hedge": _may_hedge,
    "canary": _may_test,
    "start": lambda chunk: bool(chunk.leases),
    "give_back": lambda chunk: bool(chunk.leases),
    "fail": _is_open,
    "propose": _undecided,
    "accept": _undecided,
    "ask_more": _undecided,
    "give_up": _is_open,
    "wake": lambda chunk: chunk.state is ChunkState.DELAYED,
    "requeue": lambda chunk: chunk.state is ChunkState.QUARANTINED,
    "rerun": lambda chunk: chunk.state is not ChunkState.CANCELLED,
    "cancel": _is_open,
}


def _require(event: str, chunk: Chunk) -> None:
    if not MAY[event](chunk):
        raise WrongState(f"{event} cannot happen to a chunk that is {chunk.state.value}")


def assign(chunk: Chunk, holder: Holder) -> Chunk:
    """Deal the chunk to one container; it is still ready, and first offered to that one."""
    _require("assign", chunk)
    return replace(chunk, assigned=holder)


def unassign(chunk: Chunk) -> Chunk:
    """Give an assignment back."""
    _require("unassign", chunk)
    return replace(chunk, assigned=None)


def lease(chunk: Chunk, new: Lease) -> Chunk:
    """Hand one replica out. The assignment has served its purpose."""
    _require("lease", chunk)
    return _offered(_with_lease(chunk, new))


def hedge(chunk: Chunk, new: Lease) -> Chunk:
    """Hand out one lease more than the replicas still wanted, on another host; the first goes on."""
    _require("hedge", chunk)
    if any(held.host == new.host for held in chunk.leases):
        raise WrongState("a hedge goes to another host")
    return _with_lease(chunk, new)


def canary(chunk: Chunk, new: Lease) -> Chunk:
    """Have a settled chunk computed once more as a canary: it tests the holder and changes nothing else."""
    _require("canary", chunk)
    return _with_lease(chunk, replace(new, canary=True))


def start(chunk: Chunk, *, container: str, now: datetime, until: datetime) -> Chunk:
    """A beat said that this container executes the chunk: its deadline starts anew."""
    _require("start", chunk)
    leases = tuple(
        replace(held, started=now, until=until)
        if held.container == container and held.started is None
        else held
        for held in chunk.leases
    )
    return replace(chunk, leases=leases)


def give_back(chunk: Chunk, *, container: str, token: str, lost: bool = False) -> Chunk:
    """Take back the one lease of this container and token, and offer its replica again.

    `lost`: the holder vanished or its deadline passed. If it was executing, that counts as a loss of the chunk,
    because a chunk that takes its hosts down must not go round for ever.
    """
    _require("give_back", chunk)
    kept, gone = _split(chunk, container, token)
    if gone is None:
        raise WrongState("this lease is not on the chunk")
    was_lost = lost and gone.started is not None and not gone.canary
    return _offered(replace(chunk, leases=kept, losses=chunk.losses + (1 if was_lost else 0)))


def fail(
    chunk: Chunk, *, container: str, token: str, failure: Failure, now: datetime, fleet: Fleet | None = None
) -> Chunk:
    """An attempt under a live lease failed: keep who and how, and wait, or set the chunk aside.

    `fleet`: who could compute it now; None where that is not known.
    """
    _require("fail", chunk)
    kept, gone = _split(chunk, container, token)
    if gone is None:
        raise WrongState("this lease is not on the chunk")
    failed = (*chunk.failed, failure)[-MAX_LISTED:]
    failures = chunk.failures + 1
    rested = replace(chunk, leases=kept, failed=failed, failures=failures, not_before=now + delay(failures))
    return _offered(rested, fleet)


def delay(failures: int) -> timedelta:
    """How long a chunk rests after its nth failure: 10 s, 20 s, 40 s ... at most an hour."""
    doubled = FIRST_DELAY * float(2 ** (min(failures, 12) - 1))
    return min(LONGEST_DELAY, doubled)


def propose(chunk: Chunk, candidate: Candidate) -> Chunk:
    """Add a result to those that the verdict is made from; its container's lease ends."""
    _require("propose", chunk)
    if any(known.result == candidate.result for known in chunk.candidates):
        raise WrongState("this result is a candidate already")
    if len(chunk.candidates) >= MAX_LISTED:
        raise WrongState("the chunk has all the candidates that it can carry")
    kept = tuple(held for held in chunk.leases if held.container != candidate.container)
    # Whom it was dealt to may be barred by this answer: it goes to whoever may take it.
    return _offered(replace(chunk, candidates=(*chunk.candidates, candidate), leases=kept, assigned=None))


def accept(chunk: Chunk, result: str) -> Chunk:
    """Point the chunk at one of its candidates, for good; all its leases end."""
    _require("accept", chunk)
    if all(known.result != result for known in chunk.candidates):
        raise WrongState("only a candidate is accepted")
    return replace(
        chunk,
        result=result,
        state=ChunkState.DONE,
        wanted=0,
        assigned=None,
        leases=(),
        not_before=None,
    )


def ask_more(chunk: Chunk, replicas: int) -> Chunk:
    """The candidates do not suffice: this many attempts in all are to come to a result."""
    _require("ask_more", chunk)
    if replicas <= chunk.replicas or replicas > MAX_LISTED:
        raise WrongState("the number of replicas only rises, up to a bound")
    return _offered(replace(chunk, replicas=replicas))


def give_up(chunk: Chunk) -> Chunk:
    """No verdict can be made of all the candidates that were allowed: set the chunk aside with them."""
    _require("give_up", chunk)
    if chunk.leases:
        raise WrongState("an attempt is still out")
    return _aside(chunk)


def wake(chunk: Chunk) -> Chunk:
    """The pause after a failure is over."""
    _require("wake", chunk)
    return _offered(replace(chunk, not_before=None))


def requeue(chunk: Chunk) -> Chunk:
    """A scientist gives a quarantined chunk another round; its history stays in the errors.

    Without a verdict among its candidates one attempt more is asked for; with all that it can carry, it begins anew.
    """
    _require("requeue", chunk)
    if len(chunk.candidates) >= MAX_LISTED - 1:
        return rerun(chunk, chunk.replicas)
    replicas = max(chunk.replicas, len(chunk.candidates) + 1)
    fresh = replace(chunk, failed=(), failures=0, losses=0, not_before=None, replicas=replicas)
    return _offered(replace(fresh, state=ChunkState.READY))


def rerun(chunk: Chunk, replicas: int) -> Chunk:
    """Begin anew, with `replicas` attempts at first: what was answered before stays stored, and counts no more."""
    _require("rerun", chunk)
    return replace(
        chunk,
        run=chunk.run + 1,
        state=ChunkState.READY,
        replicas=min(replicas, MAX_LISTED),
        wanted=min(replicas, MAX_LISTED),
        assigned=None,
        leases=(),
        candidates=(),
        failed=(),
        failures=0,
        losses=0,
        not_before=None,
        result=None,
    )


def cancel(chunk: Chunk) -> Chunk:
    """End the chunk without a result; what still comes is stored with the verdict cancelled."""
    _require("cancel", chunk)
    return replace(chunk, state=ChunkState.CANCELLED, wanted=0, assigned=None, leases=(), not_before=None)


def _offered(chunk: Chunk, fleet: Fleet | None = None) -> Chunk:
    """State and `wanted` as they follow from replicas, candidates, leases, failures and pause."""
    if not _is_open(chunk):
        return chunk
    out = len(chunk.leases) + len(chunk.candidates)
    wanted = max(0, chunk.replicas - out)
    if wanted and must_set_aside(chunk, fleet):
        # Nothing more is handed out, but what is out may still come to a result.
        waiting = replace(chunk, state=ChunkState.LEASED, wanted=0, assigned=None, not_before=None)
        return waiting if chunk.leases else _aside(chunk)
    if not wanted:
        state = ChunkState.LEASED if chunk.leases else ChunkState.VALIDATING
        return replace(chunk, state=state, wanted=0, assigned=None, not_before=None)
    state = ChunkState.READY if chunk.not_before is None else ChunkState.DELAYED
    assigned = chunk.assigned if state is ChunkState.READY else None
    return replace(chunk, state=state, wanted=wanted, assigned=assigned)


def _aside(chunk: Chunk) -> Chunk:
    return replace(chunk, state=ChunkState.QUARANTINED, wanted=0, assigned=None, not_before=None)


def _with_lease(chunk: Chunk, new: Lease) -> Chunk:
    if any(held.container == new.container for held in chunk.leases):
        raise WrongState("this container holds a lease on the chunk already")
    if len(chunk.leases) >= MAX_LISTED:
        raise WrongState("the chunk has all the leases that it can carry")
    return replace(chunk, assigned=None, leases=(*chunk.leases, new))


def _split(chunk: Chunk, container: str, token: str) -> tuple[tuple[Lease, ...], Lease | None]:
    gone = next((held for held in chunk.leases if held.container == container and held.token == token), None)
    return tuple(held for held in chunk.leases if held is not gone), gone
