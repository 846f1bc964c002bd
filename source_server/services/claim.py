"""`/next`: a container claims chunks under a token that it made itself."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from source_server.domain import chunk as rules
from source_server.domain import tickets
from source_server.domain.chunk import Chunk, Holder, Lease, WrongState
from source_server.domain.container import Container
from source_server.domain.task import Task
from source_server.domain.timing import lease_until
from source_server.stores.database import Stores

MOST_TASKS = 50  #: tasks that one claim looks at
MOST_CHUNKS = 500  #: chunks that one claim gets
STARTS = 4  #: random places tried before giving up on a contended task
EMPTY_S = 2.0  #: how long "no ready chunk in this task" is believed


Spread = dict[tuple[str, str], int]  #: (container, life) -> chunks dealt to it and not leased yet


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A chunk that the container may compute, and the proof that it was given it."""

    chunk: Chunk
    ticket: str
    ends_in_s: float


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What a claim won. `again`: there was work, but others were faster; ask again at once."""

    granted: tuple[Granted, ...]
    tasks: dict[str, Task]
    again: bool = False


class Emptiness:
    """Remembers for two seconds that a task had no ready chunk, and how the dealt ones were spread.

    Hints, and all about dispatch that is kept in memory: only the guarded update of a chunk decides.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._spread: tuple[float, tuple[str, ...], Spread] = (0.0, (), {})

    def spread(self, tasks: Sequence[str], count: Callable[[Sequence[str]], Spread]) -> Spread:
        """How many chunks of these tasks were dealt to whom, as counted at most two seconds ago."""
        with self._lock:
            until, of, known = self._spread
            if of != tuple(tasks) or until < self._monotonic():
                known = count(tasks)
                self._spread = (self._monotonic() + EMPTY_S, tuple(tasks), known)
            return known

    def note(self, task: str) -> None:
        """The task had none just now."""
        with self._lock:
            now = self._monotonic()
            self._until = {one: until for one, until in self._until.items() if until > now}
            self._until[task] = now + EMPTY_S

    def holds(self, task: str) -> bool:
        """Whether that is still believed."""
        with self._lock:
            return self._until.get(task, 0.0) > self._monotonic()


class Claim:
    """Leases ready chunks: those dealt to the container first, then free ones, then other containers' backlog."""

    def __init__(self, stores: Stores, *, beat_s: float, secret: bytes, emptiness: Emptiness) -> None:
        self._stores = stores
        self._beat_s = beat_s
        self._secret = secret
        self._emptiness = emptiness

    def __call__(self, container: Container, token: str, want: int) -> Claimed:
        """Up to `want` chunks; the same token again answers what it holds by now, and claims nothing more."""
        held = self._held(container, token)
        if held or want < 1 or container.paused:
            return self._claimed(container, token, held)
        again = self._lease_some(container, token, min(want, MOST_CHUNKS))
        won = self._held(container, token)
        return self._claimed(container, token, won, again=again and not won)

    def _held(self, container: Container, token: str) -> list[Chunk]:
        """What the token holds, in the order of the deadlines: the client goes through it in this order."""
        found = self._stores.chunks.under_token([token], with_input=True)
        leases = [(one, _lease_of(one, container, token)) for one in found]
        mine = [(lease.until, one.n, one) for one, lease in leases if lease is not None]
        return [one for _, _, one in sorted(mine, key=lambda place: place[:2])]

    def _lease_some(self, container: Container, token: str, want: int) -> bool:
        """Lease up to `want`; whether there were candidates that others won."""
        images = None if "sandbox" in container.runtimes else [None, container.image]
        beaten, seen = False, list[str]()
        while True:  # fifty tasks without a ready chunk must not hide the fifty-first
            found = self._stores.tasks.claimable(images, limit=MOST_TASKS, besides=seen)
            taker = self._take(container, token, want, {task.id: task for task in found})
            beaten = beaten or taker.beaten
            seen += [task.id for task in found]
            if taker.won or len(found) < MOST_TASKS:
                return beaten

    def _take(self, container: Container, token: str, want: int, tasks: dict[str, Task]) -> _Taker:
        taker = _Taker(self._stores, container, token, want, tasks, self._beat_s)
        taker.take_dealt()
        for task in tasks.values():
            if taker.missing and not self._emptiness.holds(task.id):
                self._take_free(taker, task)
        if not taker.won:
            taker.take_over(self._emptiness.spread(list(tasks), self._stores.chunks.assigned_to))
        return taker

    def _take_free(self, taker: _Taker, task: Task) -> None:
        for _ in range(STARTS):
            seen, won = taker.take_free(task)
            if not seen:
                self._emptiness.note(task.id)
            if won or not seen:
                return

    def _claimed(
        self, container: Container, token: str, chunks: Sequence[Chunk], *, again: bool = False
    ) -> Claimed:
        now = self._stores.clock.now()
        return Claimed(
            granted=tuple(self._grant(container, token, one, now) for one in chunks),
            tasks=self._stores.tasks.read(sorted({one.task for one in chunks})) if chunks else {},
            again=again,
        )

    def _grant(self, container: Container, token: str, chunk: Chunk, now: datetime) -> Granted:
        lease = _lease_of(chunk, container, token)
        assert lease is not None
        proof = tickets.ticket(
            self._secret, chunk=chunk.id, run=chunk.run, container=container.id, token=token
        )
        return Granted(chunk=chunk, ticket=proof, ends_in_s=max(0.0, (lease.until - now).total_seconds()))


class _Taker:
    """One claim under way: tries candidates, and counts what it won and was beaten to."""

    def __init__(
        self,
        stores: Stores,
        container: Container,
        token: str,
        want: int,
        tasks: dict[str, Task],
        beat_s: float,
    ) -> None:
        self._stores = stores
        self._container = container
        self._token = token
        self._tasks = tasks
        self._beat_s = beat_s
        self.missing = want
        self.won = 0
        self.beaten = False

    def take_dealt(self) -> None:
        """What `/assign` dealt to this container."""
        mine = Holder(container=self._container.id, life=self._container.life)
        dealt = self._stores.chunks.dealt(list(self._tasks), mine, limit=self.missing)
        self._try(dealt)

    def take_free(self, task: Task) -> tuple[int, int]:
        """Chunks dealt to nobody, from a random start; how many candidates there were, how many were won."""
        candidates = self._candidates(task, None, self.missing)
        return len(candidates), self._try(candidates)

    def take_over(self, assigned: Spread) -> None:
        """With nothing else ready: at most half of what the fullest other container still has before it."""
        if not assigned:
            return
        (owner, life), backlog = max(assigned.items(), key=lambda item: (item[1], item[0]))
        share = min(self.missing, (backlog + 1) // 2)
        for task in self._tasks.values():
            if share <= 0:
                return
            found = self._candidates(task, Holder(container=owner, life=life), share)
            share -= self._try(found)

    def _candidates(self, task: Task, assigned: Holder | None, limit: int) -> list[Chunk]:
        assert task.upload is not None
        return self._stores.chunks.candidates(
            task.id,
            task.upload.attempt,
            assigned,
            start=random.random(),
            limit=limit,
        )

    def _try(self, candidates: Sequence[Chunk]) -> int:
        now = self._stores.clock.now()
        changes: list[tuple[Chunk, Chunk]] = []
        for one in candidates:
            task = self._tasks[one.task]
            if task.upload is None or one.upload != task.upload.attempt:
                continue
            lease = self._lease(task, place=self.won + len(changes) + 1, now=now)
            try:
                changes.append((one, rules.lease(one, lease)))
            except WrongState:
                continue
        won = len(self._stores.chunks.apply(changes, quick=True)) if changes else 0
        self.beaten = self.beaten or (bool(changes) and not won)
        self.won += won
        self.missing -= won
        return won

    def _lease(self, task: Task, *, place: int, now: datetime) -> Lease:
        return Lease(
            token=self._token,
            container=self._container.id,
            life=self._container.life,
            host=self._container.host.id,
            account=self._container.account,
            since=now,
            until=lease_until(now, timeout_s=task.job.timeout_s, place=place, beat_s=self._beat_s),
        )


def _lease_of(chunk: Chunk, container: Container, token: str) -> Lease | None:
    for lease in chunk.leases:
        if lease.token == token and lease.container == container.id and lease.life == container.life:
            return lease
    return None
