"""`/assign`: ready chunks are dealt to live containers, round-robin, levelling what each already holds.

A deal is carried out in batches, by the one process that has it in hand; when that falls silent, another takes it.
Each batch is written down before it is made, so that after a crash at any moment another process finishes it, and
nothing is dealt or counted twice. A chunk bears the mark of the batch that dealt it: so it is counted though its
container has claimed it, or even answered, before anybody could look. What the containers hold is counted once; the
deal carries the count on.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from source_server.domain import transitions as rules
from source_server.domain.account import Account, Role
from source_server.domain.chunk import Chunk, Holder
from source_server.domain.dealing import By
from source_server.domain.refusal import NotFound
from source_server.domain.task import Task, TaskState
from source_server.services.containers.live import LiveContainers
from source_server.services.dispatch.plan_deal import PlanDeal, available
from source_server.services.rotation import Rotation
from source_server.services.tasks.depend import Depend
from source_server.stores.database import Stores
from source_server.stores.deals import Deal

BATCH = 1000
IN_REQUEST = 5  #: batches carried out before the answer; the rest is housekeeping's
IN_STEP = 20  #: batches of one deal that housekeeping carries out before it looks at the next
REDEALT = 500  #: tasks looked at in one step to see whether something of them came back
SILENCE = timedelta(seconds=15)  #: after which a process that has a deal in hand counts as gone


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
        self._plan = PlanDeal(stores)
        self._depend = Depend(stores)
        self._dealt = Rotation(lambda after: stores.unfinished.dealt_on_offer(after, limit=REDEALT))

    def __call__(self, owner: str, projects: Sequence[str] | None, by: By = By.COUNT) -> DealReport:
        """Start the sealed tasks of these projects (None: all) and deal their first 5,000 ready chunks."""
        tasks = self._stores.tasks.unended(projects)
        for task in tasks:
            if task.state is TaskState.WAITING:
                self._depend.start(task)
        deal = self._begin(owner, [task.id for task in tasks], by, hand=str(uuid.uuid4()))
        return self.report(self._carry_out(deal, batches=IN_REQUEST))

    def go_on(self, deal_id: str) -> None:
        """Housekeeping: some batches of a deal that nobody has in hand."""
        now = self._stores.clock.now()
        deal = self._stores.deals.take(deal_id, str(uuid.uuid4()), now, silent_since=now - SILENCE)
        if deal is not None:
            self._carry_out(deal, batches=IN_STEP)

    def redeal(self) -> int:
        """Housekeeping: begin deals of what came back in assigned-only projects; how many tasks have any.

        Only of tasks that were dealt before: the first time is the scientist's to say.
        """
        busy = {task for _, tasks in self._stores.deals.under_way() for task in tasks}
        there = LiveContainers(self._stores).now()
        waiting = self._plan.dealable([task for task in self._dealt_before() if task.id not in busy], there)
        for owner in sorted({task.owner for task in waiting}):
            self._begin(owner, [task.id for task in waiting if task.owner == owner], By.COUNT, hand=None)
        return len(waiting)

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
        tasks = [task for task in self._stores.tasks.read(deal.tasks).values() if task.claimable]
        live = available(LiveContainers(self._stores).now())
        remaining, unassignable = self._plan.left(tasks, live)
        holding = Counter({one.id: 0 for one in live})
        for (container, _), held in self._plan.holding().items():
            holding[container] += held
        return DealReport(deal=deal, holding=holding, remaining=remaining, unassignable=unassignable)

    def _begin(self, owner: str, tasks: Sequence[str], by: By, *, hand: str | None) -> Deal:
        now = self._stores.clock.now()
        deal = Deal(
            id=uuid.uuid4().hex[:16],
            owner=owner,
            tasks=tuple(tasks),
            created=now,
            by=by,
            hand=hand,
            touched=now,
        )
        self._stores.deals.add(deal)
        return deal

    def _dealt_before(self) -> Iterator[Task]:
        tasks = [task for task in self._dealt.next() if task.claimable]
        projects = self._stores.projects.read(sorted({task.project for task in tasks}))
        return (task for task in tasks if task.project in projects and projects[task.project].assigned_only)

    def _carry_out(self, deal: Deal, *, batches: int) -> Deal:
        """Up to so many batches of a deal in hand, which is let go of then; the deal as it is afterwards."""
        if deal.plan:
            deal = self._made(deal, self._resume(deal)) or deal  # its process died between plan and count
        there = LiveContainers(self._stores)  # made anew: a deal counts on who has just come
        for made in range(batches + 1):
            now = self._stores.clock.now()
            planned, chunks = self._plan.next_batch(deal, there.now(), size=BATCH, now=now)
            if not planned.plan and planned.place >= len(planned.tasks):
                self._stores.tasks.mark_dealt(deal.tasks)
                self._stores.deals.finish(deal)
                break
            if made == batches:
                self._stores.deals.release(deal)
                break
            if not self._stores.deals.plan(planned):
                break  # another process has it in hand
            after = self._made(planned, self._assign(planned, chunks))
            if after is None:
                break
            deal = after
        return self.get(deal.id)

    def _resume(self, deal: Deal) -> set[str]:
        """Make what is left of a plan that another process began; all of it that was ever made."""
        chunks, mark = self._stores.chunks.read(_holders(deal)), _mark(deal)
        # Looked at after they were read: one that was dealt, and came back before that, is not dealt again.
        made = self._stores.chunks.dealt_under(chunks, mark)
        self._assign(deal, {one: chunk for one, chunk in chunks.items() if one not in made})
        # Whoever began it can write nothing more: each chunk that it could still have dealt has moved on by now.
        return self._stores.chunks.dealt_under(chunks, mark)

    def _assign(self, deal: Deal, chunks: Mapping[str, Chunk]) -> set[str]:
        """Write the plan's assignments; the chunks that took theirs. The others went elsewhere meanwhile."""
        holders = _holders(deal)
        may = [chunks[one] for one in holders if one in chunks and rules.MAY["assign"](chunks[one])]
        written = self._stores.chunks.deal(
            [(one, rules.assign(one, holders[one.id])) for one in may], _mark(deal)
        )
        ids = {one.id for one in may}
        return ids if written == len(ids) else self._stores.chunks.dealt_under(ids, _mark(deal))

    def _made(self, deal: Deal, assigned: Iterable[str]) -> Deal | None:
        """The plan is carried out: count what it assigned, once; None when another process did."""
        dealt, held, holders = Counter(deal.dealt), Counter(deal.held), _holders(deal)
        for chunk in assigned:
            dealt[holders[chunk].container] += 1
            held[holders[chunk].life] += 1
        now = self._stores.clock.now()
        after = replace(deal, plan=(), dealt=dealt, held=held, step=deal.step + 1, touched=now)
        return after if self._stores.deals.advance(after) else None


def _holders(deal: Deal) -> dict[str, Holder]:
    return {chunk: Holder(container=container, life=life) for chunk, container, life in deal.plan}


def _mark(deal: Deal) -> str:
    """What a chunk remembers of the batch that dealt it."""
    return f"{deal.id}.{deal.step}"
