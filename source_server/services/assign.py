"""`/assign`: ready chunks are dealt to live containers, round-robin, levelling what each already holds.

A deal is carried out in batches. Each batch is written down before it is made, so that after a crash at any moment
another process finishes it, and nothing is dealt or counted twice.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from source_server.domain import chunk as rules
from source_server.domain.account import Account, Role
from source_server.domain.chunk import Chunk, Holder
from source_server.domain.container import Container
from source_server.domain.dealing import level
from source_server.domain.refusal import NotFound
from source_server.domain.task import Task, fits
from source_server.stores.database import Stores
from source_server.stores.deals import Deal

BATCH = 1000
IN_REQUEST = 5  #: batches carried out before the answer; the rest is housekeeping's

Plan = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class DealReport:
    """What a deal did so far, and what the containers hold, read back from the database."""

    deal: Deal
    holding: Mapping[str, int]
    remaining: int  #: ready, dealt to nobody, though a live container fits
    unassignable: int  #: ready, dealt to nobody, and no live container fits


class Assign:
    """Deals, and goes on with deals."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(self, owner: str, projects: Sequence[str] | None) -> DealReport:
        """Start the sealed tasks of these projects (None: all) and deal their first 5,000 ready chunks."""
        now = self._stores.clock.now()
        tasks = [
            task for task in self._stores.tasks.of_projects(projects) if task.sealed and task.ended is None
        ]
        for task in tasks:
            self._stores.tasks.start(task.id, now)
        deal = Deal(
            id=uuid.uuid4().hex[:16], owner=owner, tasks=tuple(task.id for task in tasks), created=now
        )
        self._stores.deals.add(deal)
        for _ in range(IN_REQUEST):
            deal = deal if deal.done else self.step(deal)
        if not deal.done and not self._next_plan(deal):
            deal = self.step(deal)
        return self.report(deal)

    def step(self, deal: Deal) -> Deal:
        """One batch of a deal; the deal as it is afterwards."""
        plan = deal.plan or self._next_plan(deal)
        if not plan:
            self._stores.deals.finish(deal)
        elif deal.plan or self._stores.deals.plan(deal, plan):
            dealt = Counter(deal.dealt)
            dealt.update(self._carry_out(plan, resumed=bool(deal.plan)))
            self._stores.deals.advance(deal, dealt)
        return self.get(deal.id)

    def get(self, deal_id: str) -> Deal:
        """The deal with this id; raises NotFound."""
        deal = self._stores.deals.find(deal_id)
        if deal is None:
            raise NotFound(f"There is no deal {deal_id}.")
        return deal

    def of(self, account: Account, deal_id: str) -> Deal:
        """The deal with this id; raises NotFound unless it is the caller's."""
        deal = self.get(deal_id)
        if deal.owner != account.id and account.role is not Role.ADMIN:
            raise NotFound(f"There is no deal {deal_id}.")
        return deal

    def report(self, deal: Deal) -> DealReport:
        """What the database says about the deal's tasks by now."""
        tasks = self._tasks(deal)
        live = _available(self._stores.containers.live())
        remaining = unassignable = 0
        for task in tasks:
            left = self._stores.chunks.unassigned(task.id)
            if _fitting(task, live):
                remaining += left
            else:
                unassignable += left
        holding = {container.id: 0 for container in live}
        holding.update(self._holding(tasks))
        return DealReport(deal=deal, holding=holding, remaining=remaining, unassignable=unassignable)

    def _tasks(self, deal: Deal) -> list[Task]:
        found = self._stores.tasks.read(deal.tasks)
        return [found[task] for task in deal.tasks if task in found and found[task].claimable]

    def _holding(self, tasks: Sequence[Task]) -> Counter[str]:
        held: Counter[str] = Counter()
        unfinished = {task.id for task in (*tasks, *self._stores.tasks.unfinished())}
        for (container, _), count in self._stores.chunks.assigned_to(sorted(unfinished)).items():
            held[container] += count
        held.update(self._stores.chunks.leased_by())
        return held

    def _next_plan(self, deal: Deal) -> Plan:
        live = _available(self._stores.containers.live())
        tasks = self._tasks(deal)
        holding = self._holding(tasks)
        plan: list[tuple[str, str, str]] = []
        for task in tasks:
            fitting = {one.id: one for one in _fitting(task, live)}
            room = BATCH - len(plan)
            if not fitting or not room or task.upload is None:
                continue
            chunks = self._stores.chunks.candidates(task.id, task.upload.attempt, None, start=0.0, limit=room)
            turns = level({container: holding[container] for container in fitting})
            for chunk, container in zip(chunks, turns, strict=False):
                plan.append((chunk.id, container, fitting[container].life))
                holding[container] += 1
        return tuple(plan)

    def _carry_out(self, plan: Plan, *, resumed: bool) -> Counter[str]:
        holders = {chunk: Holder(container=container, life=life) for chunk, container, life in plan}
        chunks = self._stores.chunks.read(holders)
        changes = list(_assignments(chunks, holders))
        won = self._stores.chunks.apply(changes) if changes else set()
        # After a crash some were made already: those still show whom they were dealt to. In a plan of our own, what
        # shows that was dealt by another deal, which counts it.
        made = {one.id for one in chunks.values() if resumed and _was_dealt(one, holders[one.id])}
        return Counter(holders[chunk].container for chunk in won | made)


def _assignments(chunks: Mapping[str, Chunk], holders: Mapping[str, Holder]) -> Iterator[tuple[Chunk, Chunk]]:
    for chunk in chunks.values():
        if rules.MAY["assign"](chunk):
            yield chunk, rules.assign(chunk, holders[chunk.id])


def _was_dealt(chunk: Chunk, holder: Holder) -> bool:
    return chunk.assigned == holder or any(lease.life == holder.life for lease in chunk.leases)


def _available(containers: Sequence[Container]) -> list[Container]:
    return [one for one in containers if not one.paused]


def _fitting(task: Task, containers: Sequence[Container]) -> list[Container]:
    return [one for one in containers if fits(task, runtimes=one.runtimes, image=one.image)]
