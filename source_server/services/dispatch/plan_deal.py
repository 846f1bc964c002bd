"""What a deal does next: which ready chunks, in the order of their random numbers, go to which live container."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from source_server.domain.chunk import Chunk
from source_server.domain.container import Container
from source_server.domain.dealing import By, Scale, speeds
from source_server.domain.eligibility import bar
from source_server.domain.task import Task, fits
from source_server.services.containers.dealt import dealt_tasks
from source_server.services.containers.live import Snapshot
from source_server.stores.database import Stores
from source_server.stores.deals import Deal

RECOUNT_AFTER = timedelta(minutes=1)  #: how long a deal believes its count of what the containers hold
LOOKS = 20  #: times that one batch looks for chunks, at most: some tasks have none left
PROBED = 100  #: chunks that are looked at to see whether any could be dealt

Holding = Counter[tuple[str, str]]  #: (container, life) -> chunks assigned to it or leased by it


class PlanDeal:
    """Reads what there is, and plans; writes nothing."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def next_batch(
        self, deal: Deal, there: Snapshot, *, size: int, now: datetime
    ) -> tuple[Deal, dict[str, Chunk]]:
        """The deal with its next plan, for who is there, and the chunks that this is made from, by id.

        A plan that is empty at the end of the tasks: nothing is left to deal.
        """
        live = available(there)
        deal = self._counted(deal, live, now)
        held = Counter(deal.held)
        plan: list[tuple[str, str, str]] = []
        seen: dict[str, Chunk] = {}
        for _ in range(LOOKS):
            if len(plan) >= size or deal.place >= len(deal.tasks):
                break
            task = self._stores.tasks.find(deal.tasks[deal.place])
            fitting = list(_fitting(task, live)) if task is not None and task.claimable else []
            chunks = self._undealt(task, after=deal.after, limit=size - len(plan)) if fitting else []
            if task is not None and chunks:
                plan += _dealt_out(task, chunks, fitting, there, held, deal.by)
                seen.update((chunk.id, chunk) for chunk in chunks)
                deal = replace(deal, after=chunks[-1].r)
            else:
                deal = replace(deal, place=deal.place + 1, after=-1.0)
        return replace(deal, plan=tuple(plan), touched=now), seen

    def dealable(self, tasks: Sequence[Task], there: Snapshot) -> list[Task]:
        """Those with an undealt chunk that a container may have, among some from a random place on."""
        live = available(there)
        found = []
        for task in tasks:
            anywhere = self._undealt(task, after=random.random(), limit=PROBED)
            chunks = anywhere or self._undealt(task, after=-1.0, limit=PROBED)
            fitting = list(_fitting(task, live)) if chunks else []
            if any(True for _ in _dealt_out(task, chunks, fitting, there, Counter(), By.COUNT)):
                found.append(task)
        return found

    def holding(self) -> Holding:
        """What everybody holds now, in all tasks, read from the chunks."""
        dealt = self._stores.chunks.assigned_to(dealt_tasks(self._stores))
        return Counter(dealt) + Counter(self._stores.chunks.leased_by())

    def left(self, tasks: Iterable[Task], live: Sequence[Container]) -> tuple[int, int]:
        """How many ready chunks are dealt to nobody: that one of these containers fits, and that none fits."""
        remaining = unassignable = 0
        for task in tasks:
            left = self._stores.chunks.unassigned(task.id)
            if left and any(True for _ in _fitting(task, live)):
                remaining += left
            else:
                unassignable += left
        return remaining, unassignable

    def _counted(self, deal: Deal, live: Sequence[Container], now: datetime) -> Deal:
        if deal.counted is not None and now - deal.counted < RECOUNT_AFTER:
            return deal
        # Counting takes as long as there are chunks dealt: once, and then the deal keeps its own account.
        counted = self.holding()
        held = {one.life: counted[(one.id, one.life)] for one in live}
        return replace(deal, held=held, counted=now)

    def _undealt(self, task: Task | None, *, after: float, limit: int) -> list[Chunk]:
        if task is None or task.upload is None:
            return []
        return self._stores.chunks.undealt(task.id, task.upload.attempt, after=after, limit=limit)


def available(there: Snapshot) -> list[Container]:
    """The containers that chunks are dealt to: live, not paused, on no host that is in quarantine."""
    return [
        one
        for one in there.containers
        if not one.paused and (one.account, one.host.id) not in there.quarantined
    ]


def _dealt_out(
    task: Task,
    chunks: Sequence[Chunk],
    fitting: Sequence[Container],
    there: Snapshot,
    held: Counter[str],
    by: By,
) -> Iterator[tuple[str, str, str]]:
    """(chunk, container, life) for each chunk that one of the fitting containers may have; counts it in `held`."""
    lives = {one.id: one.life for one in fitting}
    holding = {container: held[life] for container, life in lives.items()}
    rates = {one.id: one.rate_now(there.at) for one in fitting}
    scale = Scale(holding, speeds(rates) if by is By.SPEED else None)
    choosy = any(map(_is_choosy, chunks))
    takers = {one.id: there.taker(task, one) for one in fitting} if choosy else {}
    crowd = there.crowd(task)

    def open_to(chunk: Chunk) -> Callable[[str], bool]:
        return lambda container: bar(chunk, takers[container], task.validation, crowd) is None

    for chunk in chunks:
        # Nearly all chunks are new to everybody; only one that was tried before, or wants a variant, asks who may.
        container = scale.take(open_to(chunk) if _is_choosy(chunk) else None)
        if container is not None:
            held[lives[container]] += 1
            yield chunk.id, container, lives[container]


def _is_choosy(chunk: Chunk) -> bool:
    return bool(chunk.variant or chunk.leases or chunk.candidates or chunk.failed)


def _fitting(task: Task, containers: Iterable[Container]) -> Iterator[Container]:
    return (one for one in containers if fits(task, one))
