"""Reactions take their course: the next companion is made when the one before it has ended.

One step at a time, each repeatable: it can be broken off between any two writes, and be taken by several processes at
once. It follows only from what a majority has of the task and its companions. The companion's chunk is written first,
for nothing asks for a chunk whose task is not there; then its task, which runs from then on. All ids follow from the
task and its number of rounds, so that neither is made twice.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from source_server.domain.reactions import (
    Reaction,
    Step,
    companion,
    companion_id,
    due,
    is_outdated,
    next_step,
    only_chunk,
    rule_for,
)
from source_server.domain.task import Task, TaskState
from source_server.services.each import alone
from source_server.services.files.job_images import JobImages
from source_server.services.reactions.reaction_reports import ReactionReports
from source_server.services.reactions.summary import Summary
from source_server.services.rotation import Rotation
from source_server.stores.chunks import new_rev
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

STEPS = 4  #: more than any decision leads to
SMALL = 1000  #: chunks of a task whose table is made within a request; larger ones are housekeeping's
PAGE = 100  #: tasks looked at in one step

Made = Mapping[Reaction, Task]
Read = Callable[[Sequence[str]], Mapping[str, Task]]


class React:
    """Has the reactions to a task's outcome run, one after the other."""

    def __init__(self, stores: Stores, summary: Summary) -> None:
        self._stores = stores
        self._summary = summary
        self._reports = ReactionReports(stores)
        self._turn = Rotation(lambda after: stores.reactions.under_way(after, limit=PAGE))
        self._after_large = ""

    def __call__(self, task_id: str) -> None:
        """Where a task or companion has just ended: go as far as possible now, unless that takes long."""
        self._safely(task_id, largest=SMALL)

    def all(self) -> int:
        """Housekeeping: go on with those whose turn it is, but for large tables; how many steps were taken."""
        ripe = self._ripe(self._turn.next())
        return sum(self._safely(task.id, largest=SMALL) for task in ripe)

    def large(self) -> int:
        """Housekeeping: go on with one whose table takes long to make, if there is any; how many steps were taken."""
        page = self._stores.reactions.under_way(self._after_large, limit=PAGE)
        ripe = [task for task in self._ripe(page.tasks) if _chunks(task) > SMALL]
        # The next one's turn begins behind this one, whatever becomes of it.
        self._after_large = ripe[0].id if ripe else page.after
        return self._safely(ripe[0].id, largest=None) if ripe else 0

    def _safely(self, task_id: str, *, largest: int | None) -> int:
        """What one task's reactions stumble over must hold up nobody else."""
        with alone("reactions cannot go on", task=task_id):
            return self._go_on(task_id, largest=largest)
        return 0

    def tend(self, one: Task) -> None:
        """Housekeeping, for a companion that runs: it ends when nobody waits for it, and pauses with its task."""
        # As a majority has it: what a failover may take back must not cost a reaction that is waited for.
        parent = self._stores.tasks.find(one.reacts_to or "", majority=True)
        if is_outdated(one, parent):
            self._stores.tasks.close_gate(one.id)
        elif parent is not None and parent.paused != one.paused:
            self._stores.tasks.set_paused(one.id, parent.paused)

    def _made(self, tasks: Iterable[Task], read: Read) -> dict[str, dict[Reaction, Task]]:
        """task -> the companions that react to its present outcome, as far as there are any."""
        ids = {
            task.id: {one: companion_id(task.id, one, task.rounds) for one in due(task, task.outcome)}
            for task in tasks
            if task.outcome is not None
        }
        found = read([one for named in ids.values() for one in named.values()])
        return {
            task: {reaction: found[one] for reaction, one in named.items() if one in found}
            for task, named in ids.items()
        }

    def _ripe(self, tasks: Sequence[Task]) -> list[Task]:
        """Those with something to do now; the others wait for a companion."""
        made = self._made(tasks, self._stores.reactions.standing)
        return [
            one for one in tasks if one.id in made and next_step(one, _ended(made[one.id])) is not Step.WAIT
        ]

    def _go_on(self, task_id: str, *, largest: int | None) -> int:
        for taken in range(STEPS):
            if not self._step(task_id, largest):
                return taken
        return STEPS

    def _step(self, task_id: str, largest: int | None) -> bool:
        task = self._stores.reactions.read([task_id]).get(task_id)
        if task is None or not task.reacting:
            return False
        made = self._made([task], self._stores.reactions.read)[task.id]
        step = next_step(task, _ended(made))
        if step is Step.WAIT:
            return False
        if step is Step.END:
            return self._stores.reactions.end(task.id, self._stores.clock.now(), rounds=task.rounds)
        assert isinstance(step, Reaction)
        return (largest is None or _chunks(task) <= largest) and self._make(task, step, made)

    def _make(self, task: Task, reaction: Reaction, made: Made) -> bool:
        """Make the next companion; whether the task still waited for it."""
        new = self._companion(task, reaction)
        text, files = self._summary(task, reaction, self._before(task, made))
        run = self._stores.removals.first_run(task.id)
        chunk = only_chunk(new, text, files, r=random.random(), rev=new_rev(), run=run)
        if not self._is_waited_for(new, task):
            return False  # making the table took its time
        # One that was made before a crash, or by another process at this moment, stays as it is.
        self._stores.chunks.ensure([chunk])
        if not self._is_waited_for(new, task):
            return False
        self._stores.tasks.ensure(new)
        log.info("reaction begun", extra={"task": task.id, "reaction": reaction.value})
        return True

    def _companion(self, task: Task, reaction: Reaction) -> Task:
        project, whole = self._stores.projects.find(task.project), JobImages(self._stores).whole
        rule, validator = rule_for(None, None)
        if project is not None:
            rule, validator = rule_for(project.validation, project.validator)
            validator = None if validator is None else whole(validator, project.image)
        new = companion(task, reaction, rule, validator, self._stores.clock.now())
        # The archive of its image may have come since the task was made.
        return replace(new, job=whole(new.job, None))

    def _is_waited_for(self, new: Task, task: Task) -> bool:
        """Whether the task that was read waits for the companion; its id may have come to stand for another since."""
        current = self._stores.tasks.find(task.id)
        return current is not None and current.created == task.created and not is_outdated(new, current)

    def _before(self, task: Task, made: Made) -> dict[str, Any] | None:
        """What became of the reaction that is there already, if there is one."""
        for reaction, one in made.items():
            report = self._reports.of(task, one)
            return {
                "reaction": reaction.value,
                "outcome": one.outcome.value if one.outcome else None,
                "answer": report.answer,
                "error": report.error,
            }
        return None


def _chunks(task: Task) -> int:
    return task.upload.chunks if task.upload else 0


def _ended(made: Made) -> dict[Reaction, bool]:
    return {reaction: one.state is TaskState.COMPLETE for reaction, one in made.items()}
