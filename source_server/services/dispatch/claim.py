"""`/next`: a container claims chunks under a token that it made itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from source_server.domain import tickets
from source_server.domain.chunk import Chunk, Holder, Lease
from source_server.domain.container import Container, ContainerState
from source_server.domain.pace import LEAST_STRAGGLE_S, charge_s
from source_server.domain.task import Task, fits
from source_server.domain.trust import HostRecord, in_flight_limit
from source_server.services.containers.live import LiveContainers
from source_server.services.dispatch.canaries import Canaries
from source_server.services.dispatch.hints import Hints
from source_server.services.dispatch.paces import Paces
from source_server.services.dispatch.straggle import Stragglers
from source_server.services.dispatch.take import Asker, Take, Tools
from source_server.services.dispatch.turns import Offer, Offers, Turns, pages
from source_server.stores.database import Stores

PAGE = 50  #: tasks that are looked at in one go
MOST_CHUNKS = 500  #: chunks that one claim gets
BACKLOGS = 4  #: others whose backlog is tried


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A chunk that the container may compute, and the proof that it was given it."""

    chunk: Chunk
    ticket: str
    ends_in_s: float
    variant: str = ""  #: of the job, in which it is to be computed


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What a claim won. `again`: there was work, but others were faster; ask again at once."""

    granted: tuple[Granted, ...]
    tasks: dict[str, Task]
    again: bool = False


class Claim:
    """Leases chunks: those dealt to the container; free ones; others' backlog; stragglers. Projects take turns."""

    def __init__(
        self,
        stores: Stores,
        *,
        beat_s: float,
        secret: bytes,
        live: LiveContainers,
        paces: Paces,
        dice: random.Random | None = None,
        least_straggle_s: float = LEAST_STRAGGLE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        dice = dice or random.Random()
        self._stores, self._secret, self._live, self._paces = stores, secret, live, paces
        self._hints = Hints(monotonic)
        self._offers, self._turns = Offers(stores, monotonic), Turns(stores, monotonic)
        self._stragglers = Stragglers(
            stores, hints=self._hints, paces=paces, dice=dice, least_s=least_straggle_s
        )
        self._tools = Tools(
            stores=stores,
            beat_s=beat_s,
            hints=self._hints,
            paces=paces,
            canaries=Canaries(stores, dice),
            dice=dice,
        )

    def __call__(self, container: Container, token: str, want: int) -> Claimed:
        """Up to `want` chunks; the same token again answers what it holds by now, and claims nothing more."""
        held = self._held(container, token)
        if held or want < 1 or container.paused:
            return self._claimed(container, token, held)
        asker = self._asker(container, token)
        record = self._stores.hosts.find(container.account, container.host.id)
        allowed = self._allowed(asker, record, min(want, MOST_CHUNKS))
        if not allowed:
            return self._claimed(container, token, ())
        claim = _Claiming(
            asker, Take(self._tools, asker, allowed), record is not None and bool(record.quarantined)
        )
        self._fill(claim)
        for task in claim.tasks.values():
            self._charge(task, claim.take.granted[task.id])
        # Beaten to all of them, as it seems: one may be ours all the same, and have been written to again since.
        won = self._held(container, token) if claim.take.won or claim.take.beaten else []
        return self._claimed(container, token, won, again=claim.take.beaten and not won, known=claim.tasks)

    def _asker(self, container: Container, token: str) -> Asker:
        snapshot = self._live.now()
        if all(one.life != container.life for one in snapshot.containers):
            self._live.forget()
            snapshot = self._live.now()
        return Asker(container=container, token=token, snapshot=snapshot)

    def _allowed(self, asker: Asker, record: HostRecord | None, want: int) -> int:
        """How many of `want` chunks the asker's host may still hold."""
        account, host = asker.container.account, asker.container.host.id
        limit = in_flight_limit(record, asker.snapshot.slots(account, host))
        held = self._stores.chunks.in_flight_under(host, at_most=limit)
        if limit - held < want:
            # Near the limit it matters whether another account uses the same host's id.
            held = self._stores.chunks.in_flight(account, host)
        return max(0, min(want, limit - held))

    def _fill(self, claim: _Claiming) -> None:
        offer = self._offers.now()
        self._go_through(claim, offer)
        if not claim.take.won:
            newer = self._offers.newer()
            if newer is not offer:
                self._go_through(claim, newer, besides=offer.ids)
        if not claim.take.won:
            self._with_nothing_ready(claim)

    def _go_through(self, claim: _Claiming, offer: Offer, besides: Collection[str] = frozenset()) -> None:
        """All fitting tasks in turn: fifty without a ready chunk must not hide the fifty-first."""
        container = claim.asker.container

        def may(task: Task) -> bool:
            return task.id not in besides and fits(task, container)

        projects = self._turns.projects(offer.by_project, container.shares)
        closed = {one.id for one in projects if one.assigned_only}
        for page in pages(offer, projects, may, size=PAGE):
            on_offer = self._stores.tasks.still_on_offer([task.id for task in page])
            tasks = {task.id: on_offer[task.id] for task in page if task.id in on_offer}
            claim.see(tasks, closed)
            self._take_ready(claim, claim.ordinary(tasks))
            if claim.take.won:
                return

    def _take_ready(self, claim: _Claiming, tasks: Mapping[str, Task]) -> None:
        if not tasks:
            return
        claim.take.dealt(tasks)
        for task in tasks.values():
            if claim.take.missing and task.id in claim.shared:
                claim.take.free(task)

    def _with_nothing_ready(self, claim: _Claiming) -> None:
        shared = {task: claim.tasks[task] for task in claim.ordinary(claim.tasks) if task in claim.shared}
        if shared:
            self._take_over(claim, shared)
        if shared and not (claim.take.won or claim.take.beaten):
            self._hedge(claim, shared)
        if claim.quarantined and not claim.take.won:
            tasks = list(claim.tasks.values())
            # From any of them: the host may never pass where it cannot work at all.
            for task in self._tools.dice.sample(tasks, min(PAGE, len(tasks))):
                if not claim.take.won:
                    claim.take.canary(task)

    def _take_over(self, claim: _Claiming, tasks: Mapping[str, Task]) -> None:
        spread = self._hints.spread(list(tasks), self._stores.chunks.assigned_to)
        lives = {one.life for one in claim.asker.snapshot.containers}
        # Those that are gone first, then the fullest.
        order = sorted(spread.items(), key=lambda item: (item[0][1] in lives, -item[1], item[0]))
        for (owner, life), backlog in order[:BACKLOGS]:
            if claim.take.won or life == claim.asker.container.life:
                continue
            gone = life not in lives and self._is_gone(owner, life)
            holder = Holder(container=owner, life=life)
            claim.take.take_over(tasks, holder, backlog, gone=gone)

    def _is_gone(self, container: str, life: str) -> bool:
        current = self._stores.containers.find(container)
        return current is None or current.life != life or current.state is not ContainerState.LIVE

    def _hedge(self, claim: _Claiming, tasks: Mapping[str, Task]) -> None:
        now = self._stores.clock.now()
        for task in list(tasks.values())[:PAGE]:
            slow = self._stragglers.find(task, now)
            if slow:
                room = self._stragglers.room(self._offers.now().ids, len(claim.asker.snapshot.containers))
                claim.take.hedge(task, slow, room)
            if claim.take.won:
                return

    def _charge(self, task: Task, granted: int) -> None:
        if granted:
            seconds = charge_s(self._paces.of(task.id), timeout_s=task.job.timeout_s)
            self._turns.charge(task.project, granted * seconds)

    def _held(self, container: Container, token: str) -> list[Chunk]:
        """What the token holds, in the order of the deadlines: the client goes through it in this order."""
        found = self._stores.chunks.under_token([token], with_input=True)
        leases = [(one, _lease_of(one, container, token)) for one in found]
        mine = [(lease.until, one.n, one) for one, lease in leases if lease is not None]
        return [one for _, _, one in sorted(mine, key=lambda place: place[:2])]

    def _claimed(
        self,
        container: Container,
        token: str,
        chunks: Sequence[Chunk],
        *,
        again: bool = False,
        known: Mapping[str, Task] | None = None,
    ) -> Claimed:
        now = self._stores.clock.now()
        tasks = {one.task: known[one.task] for one in chunks if one.task in known} if known else {}
        missing = sorted({one.task for one in chunks} - tasks.keys())
        return Claimed(
            granted=tuple(self._grant(container, token, one, now) for one in chunks),
            tasks={**tasks, **(self._stores.tasks.read(missing) if missing else {})},
            again=again,
        )

    def _grant(self, container: Container, token: str, chunk: Chunk, now: datetime) -> Granted:
        lease = _lease_of(chunk, container, token)
        assert lease is not None
        proof = tickets.ticket(
            self._secret,
            chunk=chunk.id,
            run=chunk.run,
            container=container.id,
            token=token,
            variant=lease.variant,
        )
        left_s = max(0.0, (lease.until - now).total_seconds())
        return Granted(chunk=chunk, ticket=proof, ends_in_s=left_s, variant=lease.variant)


class _Claiming:
    """A claim and the tasks that it has seen."""

    def __init__(self, asker: Asker, take: Take, quarantined: bool) -> None:
        self.asker = asker
        self.take = take
        self.quarantined = quarantined
        self.tasks: dict[str, Task] = {}
        self.shared: set[str] = set()  #: those of projects that are not assigned-only

    def see(self, tasks: Mapping[str, Task], closed: Collection[str]) -> None:
        """These tasks are on offer; those of `closed` projects go to whom they were dealt to."""
        self.tasks.update(tasks)
        # Companions are dealt to nobody: what they run is for whoever may run it.
        companions = {task.id for task in tasks.values() if task.validates or task.reacts_to}
        self.shared |= companions | {task.id for task in tasks.values() if task.project not in closed}

    def ordinary(self, tasks: Mapping[str, Task]) -> dict[str, Task]:
        """Those whose chunks the asker may compute: all, but for a quarantined host while others could."""
        return {
            task.id: task
            for task in tasks.values()
            if not self.quarantined or not self.asker.others_are_sound(task)
        }


def _lease_of(chunk: Chunk, container: Container, token: str) -> Lease | None:
    for lease in chunk.leases:
        if lease.token == token and lease.container == container.id and lease.life == container.life:
            return lease
    return None
