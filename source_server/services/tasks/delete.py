"""Tasks are deleted: nobody's at once, removed piece by piece, and the id free again when nothing of it is left."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from source_server.domain.account import Account
from source_server.domain.refusal import Conflict, NotFound
from source_server.domain.task import Task, TaskState
from source_server.services.each import alone
from source_server.services.messages.notices import Notices
from source_server.services.tasks.tasks import Tasks
from source_server.services.tasks.upload import QUIET as UPLOAD_QUIET
from source_server.services.tasks.validate import companion_id
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

PIECES = 20  #: pieces of one task removed before the next one's turn
QUIET = timedelta(seconds=60)  #: for so long nothing of it may have turned up before its id is free again


class Delete:
    """Marks tasks, and clears them away."""

    def __init__(self, stores: Stores, tasks: Tasks) -> None:
        self._stores = stores
        self._tasks = tasks
        self._notices = Notices(stores)

    def __call__(self, account: Account, task_id: str) -> None:
        """Delete a task that waits or is complete; raises NotFound, or Conflict while it runs."""
        try:
            task = self._tasks.steerable(account, task_id)
        except NotFound:
            # Who asked before, and heard nothing, takes this for the end of the task: a majority has to know.
            self._stores.removals.confirm(task_id)
            raise
        _require_idle(task)
        self._notices.tell(task.id)
        if not self._stores.removals.mark(task.id, self._stores.clock.now()):
            raise Conflict("Something else happened to the task at this moment: ask again.")
        log.info("task deleted", extra={"task": task.id})

    def go_on(self) -> int:
        """Housekeeping: remove some of what belongs to deleted tasks; how many documents."""
        removed = 0
        for task_id in self._stores.removals.under_way():
            with alone("deleted task cannot be removed", task=task_id):
                removed += self._clear(task_id)
        return removed

    def _clear(self, task_id: str) -> int:
        task = self._stores.tasks.find(task_id)
        if task is None or task.deleting is None:
            return 0
        validator = None if task.validator is None else companion_id(task.id)
        removed = 0
        for _ in range(PIECES):
            piece = self._stores.removals.remove_some(task.id, validator)
            removed += piece
            if not piece:
                break
        now = self._stores.clock.now()
        if removed:
            self._stores.removals.note_removed(task.id, now)
        elif not _receives(task, now - 2 * UPLOAD_QUIET):
            # What was under way in another process, and what others remember of the task, is over by then.
            self._stores.removals.finish(task.id, now - QUIET)
        return removed


def _require_idle(task: Task) -> None:
    if task.state is TaskState.RUNNING:
        raise Conflict("The task runs: cancel it first, and delete it when it is complete.")
    if task.reacting:
        raise Conflict("Reactions to the task's outcome have not ended: wait for them, or cancel the task.")


def _receives(task: Task, since: datetime) -> bool:
    """Whether an upload that was under way may still bring chunks."""
    upload = task.upload
    if upload is None or upload.complete or upload.touched is None:
        return False
    return upload.touched >= since
