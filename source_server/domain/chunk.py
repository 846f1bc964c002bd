"""A chunk's life: its states and the table of what may happen to it.

Nothing else decides about a chunk: every write to one is a value made here from the value that was read, and the
store applies it only if the chunk is still at the revision that was read. The time is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum


class ChunkState(str, Enum):
    """Where a chunk stands. Assigned is not a state, but a ready chunk with `assigned` set."""

    READY = "ready"  #: a replica is still to hand out, even while others compute it
    LEASED = "leased"  #: all wanted replicas are handed out
    DELAYED = "delayed"  #: waits until `not_before`
    VALIDATING = "validating"  #: candidates wait for a verdict (quorum)
    DONE = "done"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


OPEN_STATES = (ChunkState.READY, ChunkState.LEASED, ChunkState.DELAYED, ChunkState.VALIDATING)

MAX_LISTED = 16  #: bound of every array a chunk carries
MAX_FAILURES = 6  #: failed attempts after which a chunk is quarantined at the latest
MAX_LOSSES = 5  #: leases lost while executing, likewise
FAILED_HOSTS = 3  #: distinct hosts that failed, likewise
FIRST_DELAY = timedelta(seconds=10)  #: pause after the first failure; doubles with each further one
LONGEST_DELAY = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A container in one of its lives: who a chunk is assigned to."""

    container: str
    life: str


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A claim on a chunk by a container's current life."""

    token: str
    container: str
    life: str
    host: str
    account: str
    since: datetime
    until: datetime
    started: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A result that waits for others to agree with it (quorum)."""

    result: str
    account: str
    host: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Who failed, and how: distinct entries only."""

    host: str
    account: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One unit of a task's data. `rev` is a random number, new with every write: the guard of the next one."""

    id: str
    project: str
    task: str
    n: int
    r: float  #: random place in the order of claims
    rev: int
    upload: str  #: the upload attempt that brought it
    run: int = 0  #: raised by a rerun; part of every guard, ticket and result id
    state: ChunkState = ChunkState.READY
    wanted: int = 1  #: replicas still to hand out
    not_before: datetime | None = None
    input: str | None = None  #: JSON text; None where it was not read
    rows: int | None = (
        None  #: input rows, each with a line of the answer; None: one value for the whole chunk
    )
    first_row: int = 0  #: number of the first of them within the task
    assigned: Holder | None = None
    leases: tuple[Lease, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    failed: tuple[Failure, ...] = ()
    failures: int = 0  #: failed attempts so far, on any host
    losses: int = 0  #: leases lost while the chunk was being executed
    result: str | None = None  #: id of the accepted result


class WrongState(Exception):
    """The event cannot happen to a chunk in this state; the write is not made."""


Rule = Callable[[Chunk], bool]


def _is_open(chunk: Chunk) -> bool:
    return chunk.state in OPEN_STATES


def _may_lease(chunk: Chunk) -> bool:
    return chunk.state is ChunkState.READY and chunk.wanted > 0 and chunk.result is None


def _may_assign(chunk: Chunk) -> bool:
    return chunk.state is ChunkState.READY and chunk.assigned is None


def _may_accept(chunk: Chunk) -> bool:
    # Delayed, quarantined, expired: a late good result is never refused.
    return chunk.result is None and chunk.state is not ChunkState.CANCELLED


#: event -> may it happen to this chunk? The whole table of DISPATCH "state x event -> state, guard".
MAY: dict[str, Rule] = {
    "assign": _may_assign,
    "unassign": lambda chunk: chunk.assigned is not None,
    "lease": _may_lease,
    "start": lambda chunk: bool(chunk.leases),
    "give_back": lambda chunk: bool(chunk.leases),
    "fail": _is_open,
    "accept": _may_accept,
    "wake": lambda chunk: chunk.state is ChunkState.DELAYED,
    "requeue": lambda chunk: chunk.state is ChunkState.QUARANTINED,
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
    if any(held.container == new.container for held in chunk.leases):
        raise WrongState("this container holds a lease on the chunk already")
    wanted = chunk.wanted - 1
    return replace(
        chunk,
        wanted=wanted,
        assigned=None,
        leases=(*chunk.leases, new),
        state=ChunkState.READY if wanted else ChunkState.LEASED,
    )


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
    losses = chunk.losses + (1 if lost and gone.started is not None else 0)
    if chunk.result is not None or not _is_open(chunk):
        return replace(chunk, leases=kept, losses=losses)
    return _offer_again(replace(chunk, leases=kept, losses=losses))


def fail(chunk: Chunk, *, container: str, token: str, failure: Failure, now: datetime) -> Chunk:
    """An attempt under a live lease failed: keep who and how, and wait, or give up on the chunk."""
    _require("fail", chunk)
    kept, gone = _split(chunk, container, token)
    if gone is None:
        raise WrongState("this lease is not on the chunk")
    failed = chunk.failed if failure in chunk.failed else (*chunk.failed, failure)[-MAX_LISTED:]
    failures = chunk.failures + 1
    delayed = replace(chunk, leases=kept, failed=failed, failures=failures, not_before=now + delay(failures))
    return _offer_again(delayed, ChunkState.DELAYED)


def delay(failures: int) -> timedelta:
    """How long a chunk rests after its nth failure: 10 s, 20 s, 40 s ... at most an hour."""
    doubled = FIRST_DELAY * float(2 ** (min(failures, 12) - 1))
    return min(LONGEST_DELAY, doubled)


def accept(chunk: Chunk, result: str) -> Chunk:
    """Point the chunk at its result, for good; all its leases end (Q = 1)."""
    _require("accept", chunk)
    return replace(
        chunk,
        result=result,
        state=ChunkState.DONE,
        wanted=0,
        assigned=None,
        leases=(),
        not_before=None,
    )


def wake(chunk: Chunk) -> Chunk:
    """The pause after a failure is over."""
    _require("wake", chunk)
    return replace(chunk, state=ChunkState.READY, not_before=None)


def requeue(chunk: Chunk) -> Chunk:
    """A scientist gives a quarantined chunk another round; its history stays in the errors."""
    _require("requeue", chunk)
    fresh = replace(chunk, failed=(), failures=0, losses=0, not_before=None)
    return replace(fresh, state=ChunkState.READY, wanted=max(1, fresh.wanted))


def cancel(chunk: Chunk) -> Chunk:
    """End the chunk without a result; what still comes is stored with the verdict cancelled."""
    _require("cancel", chunk)
    return replace(chunk, state=ChunkState.CANCELLED, wanted=0, assigned=None, leases=(), not_before=None)


def must_quarantine(chunk: Chunk) -> bool:
    """Whether the chunk has failed or vanished often enough to be set aside."""
    hosts = {failure.host for failure in chunk.failed}
    return len(hosts) >= FAILED_HOSTS or chunk.failures >= MAX_FAILURES or chunk.losses >= MAX_LOSSES


def _offer_again(chunk: Chunk, state: ChunkState = ChunkState.READY) -> Chunk:
    if must_quarantine(chunk) and not chunk.leases:
        return replace(
            chunk, state=ChunkState.QUARANTINED, wanted=chunk.wanted + 1, assigned=None, not_before=None
        )
    return replace(chunk, state=state, wanted=chunk.wanted + 1)


def _split(chunk: Chunk, container: str, token: str) -> tuple[tuple[Lease, ...], Lease | None]:
    gone = next((held for held in chunk.leases if held.container == container and held.token == token), None)
    return tuple(held for held in chunk.leases if held is not gone), gone
