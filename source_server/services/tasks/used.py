"""What a task with limits has used."""

from __future__ import annotations

from source_server.domain.limits import Used
from source_server.domain.task import Task
from source_server.stores.database import Stores


def used_of(stores: Stores, task: Task) -> Used:
    """What the task has used, as far as it is counted: seconds behind what has come in."""
    if not task.counted:
        return Used()
    wants_answers = task.limits is not None and task.limits.stop_when is not None
    return Used(
        cpu_s=stores.tallies.read(task.id).cpu_s,
        answers=stores.tallies.answers(task.id) if wants_answers else 0,
    )
