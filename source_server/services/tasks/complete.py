"""Tasks end: complete once no chunk is open, decided once; cancelled ones are swept first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from source_server.domain import transitions as rules
from source_server.domain.chunk import OPEN_STATES, Chunk, ChunkState
from source_server.domain.reactions import due, outcome_of
from source_server.domain.task import Task, TaskOutcome, TaskState
from source_server.services.each import together
from source_server.services.tasks.validate import companion_id
from source_server.stores.database import Stores

SWEEP = 1000  #: chunks cancelled, or woken, in one go
WAKES = 5  #: times a step does so

Told = Callable[[str], None]  #: is told the id of a task


class Complete:
    """Decides whether a task has ended, and how."""

    def __init__(
        self, stores: Stores, *, react: Told = lambda task: None, followers: Told = lambda task: None
    ) -> None:
        """`react` goes on with a task's reactions; `followers` looks at those that wait for a task."""
        self._stores = stores
        self._react = react
        self._followers = followers

    def if_done(self, task_id: str) -> bool:
        """Complete the task if nothing of it is open; whether this call did."""
        task = self._stores.tasks.find(task_id)
        if task is None or task.state is not TaskState.RUNNING or not task.sealed or task.upload is None:
            return False
        if task.round is not None or task.open_ended or task.appending is not None:
            return False  # chunks are still being sent out again, or added
        if task.validates is not None:
            return self._with_its_task(task)
        upload = task.upload.attempt
        if self._stores.chunks.any_in(task_id, upload, OPEN_STATES):
            return False
        quarantined = self._stores.chunks.how_many_in(
            task_id, upload, [ChunkState.QUARANTINED], at_most=task.max_failed + 1
        )
        return self._end(task, outcome_of(task, quarantined))

    def _end(self, task: Task, outcome: TaskOutcome) -> bool:
        """Complete a task, and what compares its answers with it; whether this call did."""
        now = self._stores.clock.now()
        if task.validator is not None:
            # Nobody looks at a companion that waits; one that runs housekeeping ends, if a crash comes in between.
            self._stores.tasks.start(companion_id(task.id), now)
        # That reactions are due is part of the decision: whoever dies after it leaves that to housekeeping.
        ended = self._stores.tasks.complete(task, outcome, now, reacting=bool(due(task, outcome)))
        if task.validator is not None:
            self.if_done(companion_id(task.id))
        if ended:
            self._react(task.reacts_to or task.id)
            self._followers(task.id)
        return ended

    def _with_its_task(self, companion: Task) -> bool:
        """A validator's task has no data of its own: it ends with the one whose answers it compares."""
        parent = self._stores.tasks.find(companion.validates or "")
        if parent is not None and parent.state is not TaskState.COMPLETE:
            return False
        return self._stores.tasks.complete(companion, TaskOutcome.SUCCEEDED, self._stores.clock.now())

    def sweep_cancelled(self, found: Task) -> int:
        """Cancel some of a cancelled task's open chunks, and complete it once there are none; how many."""
        # As a majority has it: no chunk goes because of a word that a failover may take back.
        task = self._stores.tasks.find(found.id, majority=True)
        if task is None or not task.cancelled:
            return 0
        if task.round is not None or task.appending is not None:
            return 0  # it might still send chunks out, or add some: it ends first
        chunks = self._stores.chunks.open(task.id, limit=SWEEP)
        cancelled = (
            self._stores.chunks.apply([(one, rules.cancel(one)) for one in chunks]) if chunks else set()
        )
        if not chunks:
            self._end(task, TaskOutcome.CANCELLED)
        return len(cancelled)

    def wake(self) -> int:
        """Offer chunks, of all tasks, whose pause after a failure is over; how many."""
        woken = 0
        for _ in range(WAKES):
            rested = self._stores.chunks.rested(self._stores.clock.now(), limit=SWEEP)
            if rested:
                woken += together("chunk cannot be offered again", self._wake, rested)
            if len(rested) < SWEEP:
                break
        return woken

    def _wake(self, rested: Sequence[Chunk]) -> int:
        return len(self._stores.chunks.apply([(one, rules.wake(one)) for one in rested]))
