"""One state of the model: the database twice (as the primary has it, as a majority has it), clients and requests.

Chunks are numbers, given out by the rulebook; attempts are ids like `a1.0.right`: client a's first claim, run 0.
"""

from __future__ import annotations

from typing import NamedTuple

#: Verdicts that are not the last word.
OPEN = ("new", "candidate")


class Database(NamedTuple):
    """What the documents say: one chunk, its stored attempts, the clients' records, the task."""

    chunk: int
    rev: int
    attempts: tuple[tuple[str, str], ...] = ()  #: (id, verdict), sorted
    lives: tuple[int, ...] = ()  #: each client's current life; negative: purged after that many
    cancelled: bool = False  #: the task's gate
    run: int = 0  #: the run that the task's chunks are to reach


class Old(NamedTuple):
    """A primary that was deposed and does not know it: what it says to those who still ask it.

    What it has beyond a majority's view is not here: reading that now, or before the failover by a request that
    outlives it, comes to the same.
    """

    majority_chunk: int
    attempts: tuple[str, ...]  #: that it has, with a majority or not
    majority_attempts: tuple[str, ...]


class Client(NamedTuple):
    """A container: one chunk at a time, and a spool that survives its death."""

    life: int = 1
    claims: int = 0  #: tokens made so far
    asking: str = ""  #: a claim's token whose answer did not arrive
    running: str = ""  #: the token of what it computes
    run: int = 0  #: and that chunk's run
    spool: tuple[str, ...] = ()  #: attempts it has finished, and not heard "stored" of


class Request(NamedTuple):
    """Somebody on the server at work on an attempt ("": on the chunk alone): where, and what was read."""

    attempt: str
    step: str
    seen: int = -1  #: the chunk as it was read
    rev: int = -1


class Spent(NamedTuple):
    """How often the rare events have happened."""

    failovers: int = 0
    purges: int = 0
    reruns: int = 0
    requeues: int = 0


class State(NamedTuple):
    """Everything."""

    primary: Database
    majority: Database
    clients: tuple[Client, ...]
    old: Old | None = None
    requests: tuple[Request, ...] = ()
    told: tuple[str, ...] = ()  #: attempts whose clients heard "stored"
    chosen: tuple[tuple[int, str], ...] = ()  #: (run, result) as a majority first had it
    spent: Spent = Spent()
    broken: str = ""  #: a promise that a step broke


def verdict_of(database: Database, attempt: str) -> str | None:
    """None: it is not stored."""
    for known, verdict in database.attempts:
        if known == attempt:
            return verdict
    return None


def with_verdict(database: Database, attempt: str, verdict: str) -> Database:
    """The database with this attempt stored under this verdict."""
    others = [one for one in database.attempts if one[0] != attempt]
    return database._replace(attempts=tuple(sorted([*others, (attempt, verdict)])))


def rewritten(state: State, chunk: int, *, counting: bool) -> State:
    """After a write to the primary's chunk, which gets a revision that no other write has had, or, counting, the next;
    the very same state when nothing changes."""
    if chunk == state.primary.chunk:
        return state
    known = [state.primary.rev, state.majority.rev, *(one.rev for one in state.requests)]
    rev = state.primary.rev + 1 if counting else max(known) + 1
    return state._replace(primary=state.primary._replace(chunk=chunk, rev=rev))


def with_client(state: State, who: int, client: Client) -> State:
    """The state with this client changed."""
    return state._replace(clients=(*state.clients[:who], client, *state.clients[who + 1 :]))


def with_request(state: State, request: Request) -> State:
    """The state with one request more under way."""
    return state._replace(requests=(*state.requests, request))


def with_life(state: State, who: int, life: int) -> State:
    """The state with another life in a container's record."""
    lives = state.primary.lives
    return state._replace(primary=state.primary._replace(lives=(*lives[:who], life, *lives[who + 1 :])))


def canonical(state: State) -> State:
    """The same state with requests in order and random revisions named: 0 is the primary's, 1 the majority's other one.

    A random revision that is gone never comes back: whoever waits to write over it has nothing to do any more.
    """
    ours, theirs = state.primary.rev, state.majority.rev
    names = {-1: -1, theirs: 1, ours: 0}
    requests = tuple(sorted(one._replace(rev=names[one.rev]) for one in state.requests if one.rev in names))
    return state._replace(
        primary=state.primary if ours == 0 else state.primary._replace(rev=0),
        majority=state.majority if theirs == names[theirs] else state.majority._replace(rev=names[theirs]),
        requests=requests,
    )


def without_stale_views(state: State) -> State:
    """The same state without what a deposed primary shows of attempts whose verdict is known."""
    old = state.old
    if old is None:
        return state
    open_ = {one for one, verdict in state.primary.attempts if verdict in OPEN}
    shown = tuple(one for one in old.majority_attempts if one in open_)
    return state._replace(old=Old(old.majority_chunk, (), shown) if shown else None)


def shifted(state: State) -> State:
    """The same for revisions that count up: the lowest is 0."""
    least = min(
        state.primary.rev,
        state.majority.rev,
        *(one.rev for one in state.requests if one.rev >= 0),
    )
    requests = (one if one.rev < 0 else one._replace(rev=one.rev - least) for one in state.requests)
    return state._replace(
        primary=state.primary._replace(rev=state.primary.rev - least),
        majority=state.majority._replace(rev=state.majority.rev - least),
        requests=tuple(sorted(requests)),
    )
