"""Tasks that come after others start by themselves once all of those have succeeded; else they are cancelled."""

from __future__ import annotations

import logging

from source_server.domain.depending import May, Standing, TooManyBefore, circle, standing
from source_server.domain.refusal import Conflict, NotFound
from source_server.domain.task import Task, TaskState
from source_server.services.each import alone
from source_server.services.rotation import Rotation
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

IN_REQUEST = 100  #: tasks waiting for one that ended which are looked at at once; the rest is housekeeping's

IN_STEP = 200  #: tasks that housekeeping looks at in one step


class Depend:
    """Starts tasks when they may start."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._waiting = Rotation(lambda after: stores.unfinished.waiting_for_others(after, limit=IN_STEP))

    def start(self, task: Task) -> bool:
        """Start a sealed task that waits, now or as soon as it may; whether it runs by this call."""
        if not task.after_tasks:
            return self._stores.tasks.start(task.id, self._stores.clock.now())
        self._stores.dependencies.want_start(task.id)
        return self.go_on(task.id)

    def go_on(self, task_id: str) -> bool:
        """Look again at a task that was started and waits for others; whether it runs by this call."""
        task = self._stores.tasks.find(task_id)
        if task is None or task.state is not TaskState.WAITING or not task.start_wanted or task.cancelled:
            return False
        found = self.standing(task)
        if found.may is May.START:
            return self._stores.tasks.start(task.id, self._stores.clock.now())
        if found.may is May.NEVER and self._stores.dependencies.cancel(task.id, found.reasons[0]):
            log.info("task cancelled", extra={"task": task.id, "why": found.reasons[0]})
        return False

    def go_on_all(self) -> int:
        """Housekeeping: look again at those whose turn it is; how many may start now, or never."""
        tasks = self._waiting.next()
        others = self._stores.unfinished.named(
            sorted({other for task in tasks for other in task.after_tasks})
        )
        decided = [task for task in tasks if standing(task, others).may is not May.WAIT]
        for task in decided:
            with alone("task cannot start", task=task.id):
                self.go_on(task.id)
        return len(decided)

    def followers(self, task_id: str) -> None:
        """A task is complete: look at those that wait for it."""
        for one in self._stores.dependencies.followers(task_id, limit=IN_REQUEST):
            self.go_on(one)

    def standing(self, task: Task) -> Standing:
        """What those that it comes after say."""
        return standing(task, self._stores.tasks.read(task.after_tasks) if task.after_tasks else {})

    def require_own(self, owner: str, after_tasks: tuple[str, ...]) -> None:
        """Raises NotFound for a task of somebody else; those that do not exist yet may come."""
        for one in self._stores.tasks.read(after_tasks).values() if after_tasks else ():
            if one.owner != owner:
                raise NotFound(f"There is no task {one.id} of yours to come after.")

    def require_no_circle(self, task: Task) -> None:
        """Take a task that was stored just now back, and raise Conflict, when it comes after itself or too many others.

        It is stored before this looks: of two that close a circle at the same moment, one at least sees the other.
        """
        if not task.after_tasks:
            return
        try:
            way = circle(task.id, lambda ids: self._stores.dependencies.edges(ids, task.owner))
        except TooManyBefore as error:
            self._stores.dependencies.withdraw(task.id)
            raise Conflict(str(error)) from error
        if way is not None:
            self._stores.dependencies.withdraw(task.id)
            raise Conflict(f"This task would come after itself: {_in_words([*way, task.id])}.")


def _in_words(way: list[str]) -> str:
    return ", which comes after ".join(way)
