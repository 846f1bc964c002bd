"""What may be changed of a task after it was made: its limits, and who is told."""

from __future__ import annotations

from source_server.domain.account import Account
from source_server.domain.limits import Limits
from source_server.domain.notice import Target
from source_server.domain.refusal import Conflict
from source_server.domain.task import Task, TaskState
from source_server.services.tasks.tasks import Tasks
from source_server.stores.database import Stores


class ChangeTask:
    """Everybody changes only their own tasks, an admin all."""

    def __init__(self, stores: Stores, tasks: Tasks) -> None:
        self._stores = stores
        self._tasks = tasks

    def limits(self, account: Account, task_id: str, limits: Limits | None) -> None:
        """Change the task's limits; raises NotFound, or Conflict for what can be said only before it starts."""
        task = self._own(account, task_id)
        if task.ends_as is not None and task.state is not TaskState.COMPLETE:
            raise Conflict("The task is just ending, as its limits said.")
        counted = task.counted
        if task.state is TaskState.WAITING:
            counted = limits is not None and limits.counting
        else:
            _require_countable(task, limits)
        if not self._stores.limited.set_limits(task, limits, counted=counted):
            raise Conflict("Something else happened to the task at this moment: send the same request again.")

    def notify(self, account: Account, task_id: str, targets: tuple[Target, ...]) -> None:
        """Change who is told from now on; raises NotFound."""
        self._own(account, task_id)
        self._stores.limited.set_targets(task_id, targets)

    def _own(self, account: Account, task_id: str) -> Task:
        task = self._tasks.get(account, task_id)
        whole = task.validates or task.reacts_to
        if whole is not None:
            raise Conflict(f"This belongs to the task {whole}: change that one.")
        return task


def _require_countable(task: Task, limits: Limits | None) -> None:
    """What has come in was counted, or looked at, by the limits that the task started with."""
    if limits is None:
        return
    if limits.counting and not task.counted:
        raise Conflict(
            "The task started without limits that count (cpu_hours, stop_when): now only 'until' can be added."
        )
    before = None if task.limits is None else task.limits.stop_when
    if limits.stop_when is not None and (before is None or before.match != limits.stop_when.match):
        raise Conflict(
            "Which answers match for stop_when is said before the task starts; 'answers' may change later."
        )
