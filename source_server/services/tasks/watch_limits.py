"""Limits of tasks: what they have used is counted, and who has used up pauses or ends. A step of housekeeping.

What has been counted stays counted, every decision is one guarded write, and what follows from it is found again by the
next step: it may break off anywhere, and any number of housekeepers may be at it.
"""

from __future__ import annotations

import logging

from source_server.domain import transitions as rules
from source_server.domain.limits import Limits, Then, Used, enough, over
from source_server.domain.matching import matching
from source_server.domain.task import Task, TaskOutcome, TaskState
from source_server.services.each import alone
from source_server.services.rotation import Rotation
from source_server.services.tasks.complete import Complete
from source_server.services.tasks.used import used_of
from source_server.stores.database import Stores
from source_server.stores.tallies import BATCH

log = logging.getLogger(__name__)

#: Tasks looked at in one step: with something to count, with limits, and ending; the others in turn.
TASKS = 100
BATCHES = 40  #: batches counted in one step, of all tasks
LOOKED_AT = 200  #: answers read in one go: each may be 256 KiB
SWEEP = 1000  #: chunks cancelled in one go


class WatchLimits:
    """Looks at running tasks with limits, some a step."""

    def __init__(self, stores: Stores, complete: Complete) -> None:
        self._stores = stores
        self._complete = complete
        self._turns = (
            Rotation(lambda after: stores.unfinished.limited(after, limit=TASKS)),
            Rotation(lambda after: stores.unfinished.ending(after, limit=TASKS)),
        )

    def step(self) -> None:
        """Count some of what came in, and decide."""
        running = [task.id for turn in self._turns for task in turn.next()]
        # Of a task that has ended, too: its last attempts are part of what it has used.
        waiting = self._stores.tallies.waiting(limit=TASKS)
        due = [task for one in dict.fromkeys([*waiting, *running]) if (task := self._read(one))]
        counted = [one for one in due if one.counted]
        budget = BATCHES
        while counted and budget > 0:
            # A batch of each: a task with a million attempts to count must not keep the others waiting.
            counted = [one for one in counted if self._more(one)]
            budget -= max(1, len(counted))
        for task in due:
            with alone("limits of a task cannot be looked at", task=task.id):
                self.decide(task)

    def _read(self, task_id: str) -> Task | None:
        with alone("task with limits cannot be read", task=task_id):
            return self._stores.tasks.find(task_id)
        return None

    def _more(self, task: Task) -> bool:
        with alone("what a task has used cannot be counted", task=task.id):
            return self._count(task)
        return False

    def decide(self, task: Task) -> None:
        """Pause or end the task if it has used up; go on with ending one."""
        if task.state is not TaskState.RUNNING or task.cancelled:
            return
        if task.ends_as is not None:
            self.sweep(task)
        elif task.limits is not None:
            self._judge(task, task.limits)

    def _judge(self, task: Task, limits: Limits) -> None:
        used = used_of(self._stores, task)
        if enough(limits, used) is not None and (why := enough(limits, self._recounted(task, used))):
            self._end(task, TaskOutcome.SUCCEEDED, why)
            return
        why = over(limits, used, self._stores.clock.now())
        if why is None:
            return
        if limits.then is Then.END:
            self._end(task, TaskOutcome.FAILED, why)
        elif not task.paused and self._stores.limited.pause(task, why):
            log.warning("task paused itself", extra={"task": task.id, "why": why})

    def _end(self, task: Task, outcome: TaskOutcome, why: str) -> None:
        if self._stores.limited.end(task, outcome, why):
            log.info("task ends early", extra={"task": task.id, "why": why})
            ending = self._stores.tasks.find(task.id)
            if ending is not None:
                self.sweep(ending)

    def sweep(self, task: Task) -> None:
        """Cancel some of an ending task's open chunks; complete it once there are none."""
        # As a majority has it: no chunk goes because of a word that a failover may take back.
        sure = self._stores.tasks.find(task.id, majority=True)
        if sure is None or sure.ends_as is None or sure.round is not None or sure.appending is not None:
            return  # it might still send chunks out, or add some: it ends first
        chunks = self._stores.chunks.open(task.id, limit=SWEEP)
        if chunks:
            self._stores.chunks.apply([(one, rules.cancel(one)) for one in chunks])
        if len(chunks) < SWEEP:
            self._complete.if_done(task.id)

    def _count(self, task: Task) -> bool:
        """One batch of the task; whether there may be more."""
        more = self._stores.tallies.count(task.id) >= BATCH
        limits = task.limits
        if limits is None or limits.stop_when is None:
            return more
        found = self._stores.tallies.unmatched(task.id, limit=LOOKED_AT)
        lines = task.rows_per_chunk > 1
        counts = [(one.id, matching(limits.stop_when.match, one.text, lines=lines)) for one in found]
        self._stores.tallies.note_matched(counts)
        return more or len(found) == LOOKED_AT

    def _recounted(self, task: Task, used: Used) -> Used:
        """The same after every answer that matched was held against its chunk: a rerun may have taken it back."""
        after = ""
        while found := self._stores.tallies.matched(task.id, after=after, limit=1000):
            chunks = self._stores.chunks.read([chunk for _, chunk in found], majority=True)
            gone = [id_ for id_, chunk in found if chunk not in chunks or chunks[chunk].result != id_]
            self._stores.tallies.forget_matched(gone)
            after = found[-1][0]
        return Used(cpu_s=used.cpu_s, answers=self._stores.tallies.answers(task.id))
