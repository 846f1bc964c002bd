"""One claim under way: it tries candidates, and counts what it won and was beaten to."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, Holder, Lease
from source_server.domain.container import Container
from source_server.domain.eligibility import Taker, bar, open_variants
from source_server.domain.features import Feature
from source_server.domain.pace import CLAIM_S, VALIDATOR_CLAIM, reckoned_s, room
from source_server.domain.task import Task
from source_server.domain.timing import lease_until
from source_server.domain.transitions import WrongState
from source_server.domain.validation import Distinct
from source_server.services.containers.live import Snapshot
from source_server.services.dispatch.canaries import Canaries
from source_server.services.dispatch.hints import Hints
from source_server.services.dispatch.paces import Paces
from source_server.stores.database import Stores

STARTS = 4  #: random places tried before giving up on a contended task
BARRED = 2  #: of those, places where every candidate was barred, before they are searched in order
MARGIN = 64  #: candidates looked at beyond those wanted, where not every one may be taken
SWEEP = 2000  #: chunks that one step of the search through all of them looks at

Event = Callable[[Chunk, Lease], Chunk]
Offered = tuple[Chunk, Event]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What every claim of a process works with."""

    stores: Stores
    beat_s: float
    hints: Hints
    paces: Paces
    canaries: Canaries
    dice: random.Random


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who claims, under which token, among which others."""

    container: Container
    token: str
    snapshot: Snapshot

    def taker(self, task: Task) -> Taker:
        """The asker as a chunk of the task sees it."""
        return self.snapshot.taker(task, self.container)

    def others_are_sound(self, task: Task) -> bool:
        """Whether a live container of another host, not quarantined, fits the task."""
        own = (self.container.account, self.container.host.id)
        hosts = {(one.account, one.host.id) for one in self.snapshot.fitting(task)}
        return bool(hosts - self.snapshot.quarantined - {own})


class Take:
    """Up to `want` chunks for one asker, and no more than it finishes in ten minutes."""

    def __init__(self, tools: Tools, asker: Asker, want: int) -> None:
        self._tools = tools
        self._asker = asker
        self._left_s = CLAIM_S
        self._thrown: set[str] = set()
        self.missing = want
        self.won = 0
        self.beaten = False  #: candidates were there, and others won them
        self.granted: Counter[str] = Counter()  #: task -> chunks won to be computed, canaries left out

    def dealt(self, tasks: Mapping[str, Task]) -> None:
        """What `/assign` dealt to this container."""
        container = self._asker.container
        mine = Holder(container=container.id, life=container.life)
        self._each_task(tasks, self._dealt(tasks, mine, self.missing + MARGIN))

    def free(self, task: Task) -> None:
        """Chunks of the task that were dealt to nobody, from random starts."""
        who, empty = self._who(task), ("free", task.id)
        hints = self._tools.hints
        if hints.holds(empty) or hints.holds(who) or not self._most(task):
            return None
        seen, width, barred = 0, 0.0, 0
        for attempt in range(STARTS):
            start = self._tools.dice.random()
            picky = task.validation.checks or task.job.variant_field is not None
            limit = self._most(task) + (MARGIN if attempt or picky else 0)
            found = self._look(task, start, limit)
            if not found:
                return hints.note(empty)
            fit = self._unbarred(task, found)
            if self._lease(task, fit):
                return None
            if not fit and len(found) < limit:
                return hints.note(who)
            if not fit:
                seen, width = seen + len(found), width + (found[-1].r - start) % 1.0
                barred += 1
            if barred == BARRED:
                return self._sweep(task, who, seen / max(width, 1e-9))
        return None

    def take_over(self, tasks: Mapping[str, Task], holder: Holder, backlog: int, *, gone: bool) -> None:
        """Chunks dealt to another: at most half of what it has before it, or all if it is gone."""
        share = min(self.missing, backlog if gone else (backlog + 1) // 2)
        found = self._dealt(tasks, holder, 2 * share + MARGIN)
        # Not all who are idle for the same ones.
        self._tools.dice.shuffle(found)
        self._each_task(tasks, found, most=share)

    def hedge(self, task: Task, stragglers: Sequence[Chunk], most: int) -> None:
        """One lease more on chunks that others compute for too long."""
        host = self._asker.container.host.id
        elsewhere = [one for one in stragglers if all(held.host != host for held in one.leases)]
        self._lease(task, self._unbarred(task, elsewhere)[:most], rules.hedge)

    def canary(self, task: Task) -> None:
        """A settled chunk, to test the asker."""
        found = self._tools.canaries.find(task, self._asker.taker(task))
        if found is not None:
            self._apply(task, [(found, rules.canary)])

    def _dealt(self, tasks: Mapping[str, Task], holder: Holder, limit: int) -> list[Chunk]:
        found = self._tools.stores.chunks.dealt(list(tasks), holder, limit=limit)
        uploads = {task.id: task.upload.attempt for task in tasks.values() if task.upload is not None}
        return [one for one in found if one.upload == uploads.get(one.task)]

    def _look(self, task: Task, start: float, limit: int) -> list[Chunk]:
        assert task.upload is not None
        windows = self._tools.stores.windows
        return windows.look(task.id, task.upload.attempt, start=start, limit=limit)

    def _sweep(self, task: Task, who: Hashable, density: float) -> None:
        """Go on with the search for a chunk that this asker may take, where nearly all are barred to it."""
        start = self._tools.hints.sweep_from(who)
        assert task.upload is not None
        end, limit = min(1.0, start + SWEEP / density), self._most(task) + MARGIN
        found = self._tools.stores.windows.eligible(
            task.id,
            task.upload.attempt,
            self._asker.taker(task),
            task.validation,
            self._asker.snapshot.crowd(task),
            start=start,
            end=end,
            limit=limit,
        )
        fit = self._unbarred(task, found)
        if not fit:
            self._tools.hints.swept(who, math.nextafter(found[-1].r, 1) if len(found) == limit else end)
        self._tools.dice.shuffle(fit)
        self._lease(task, fit)

    def _each_task(self, tasks: Mapping[str, Task], chunks: Sequence[Chunk], most: int | None = None) -> None:
        by_task: dict[str, list[Chunk]] = {}
        for one in chunks:
            by_task.setdefault(one.task, []).append(one)
        left = self.missing if most is None else most
        for task, found in by_task.items():
            left -= self._lease(tasks[task], self._unbarred(tasks[task], found)[:left])

    def _unbarred(self, task: Task, chunks: Sequence[Chunk]) -> list[Chunk]:
        taker, rule = self._asker.taker(task), task.validation
        # Its task says so too, but that word may be younger than what this claim has read of the task.
        if Feature.FILES.value not in self._asker.container.features:
            chunks = [one for one in chunks if not (one.files or one.input_file)]
        simple = not rule.checks and not task.job.variants and task.reacts_to is None
        if simple and not any(one.failed or one.leases for one in chunks):
            return list(chunks)  # nothing can stand against it, whoever else is there
        crowd = self._asker.snapshot.crowd(task)
        return [one for one in chunks if bar(one, taker, rule, crowd) is None]

    def _lease(self, task: Task, chunks: Sequence[Chunk], event: Event = rules.lease) -> int:
        """Try these, as many as are missing, a canary among them where one is due; how many were won."""
        most = self._most(task)
        batch: list[Offered] = [(one, event) for one in chunks[:most]]
        if batch and task.id not in self._thrown:
            self._thrown.add(task.id)
            batch = self._with_canary(task, batch, most)
        return self._apply(task, batch)

    def _with_canary(self, task: Task, batch: list[Offered], most: int) -> list[Offered]:
        """A canary takes the place of another chunk, anywhere in the batch: nothing tells it from the others."""
        canaries = self._tools.canaries
        found = canaries.find(task, self._asker.taker(task)) if canaries.due(task) else None
        if found is None:
            return batch
        mixed = [*batch[: most - 1], (found, rules.canary)]
        self._tools.dice.shuffle(mixed)
        return mixed

    def _apply(self, task: Task, batch: Sequence[Offered]) -> int:
        now = self._tools.stores.clock.now()
        changes: list[tuple[Chunk, Chunk]] = []
        canaries = set[str]()
        for one, event in batch:
            lease = self._new_lease(task, one, place=self.won + len(changes) + 1, now=now)
            try:
                changes.append((one, event(one, lease)))
            except WrongState:
                continue
            if event is rules.canary:
                canaries.add(one.id)
        written = self._tools.stores.chunks.apply(changes, quick=True) if changes else set()
        self._count(task, len(written), canaries=len(written & canaries))
        self.beaten = self.beaten or (bool(changes) and not written)
        return len(written)

    def _count(self, task: Task, written: int, *, canaries: int) -> None:
        self.won += written
        self.missing -= written
        self.granted[task.id] += written - canaries
        pace = self._tools.paces.of(task.id) if written else None
        self._left_s -= written * reckoned_s(pace, timeout_s=task.job.timeout_s)

    def _most(self, task: Task) -> int:
        """How many chunks of the task this claim may still get: at least one, if it has none yet."""
        pace = self._tools.paces.of(task.id)
        most = room(pace, timeout_s=task.job.timeout_s, left_s=max(0.0, self._left_s))
        if task.validates is not None:
            most = min(most, VALIDATOR_CLAIM - self.granted[task.id])
        return min(self.missing, max(most, 0 if self.won else 1))

    def _new_lease(self, task: Task, chunk: Chunk, *, place: int, now: datetime) -> Lease:
        container, taker = self._asker.container, self._asker.taker(task)
        variants = open_variants(chunk, taker, task.validation) or list(taker.variants)
        return Lease(
            token=self._asker.token,
            container=container.id,
            life=container.life,
            host=container.host.id,
            account=container.account,
            since=now,
            until=lease_until(now, timeout_s=task.job.timeout_s, place=place, beat_s=self._tools.beat_s),
            platform=taker.platform,
            established=taker.established,
            variant=self._tools.dice.choice(variants) if variants else "",
        )

    def _who(self, task: Task) -> Hashable:
        """Whom "none of these may be taken" is remembered about: all containers that the same things bar."""
        rule = task.validation
        taker = self._asker.taker(task)
        alike = rule.checks and rule.distinct not in (Distinct.CONTAINER, Distinct.VARIANT)
        return task.id, replace(taker, container="") if alike else taker
