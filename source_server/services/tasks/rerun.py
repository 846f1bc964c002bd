"""Reruns: chunks of a task are computed anew, in a new run; what was answered before is kept, and counts no more."""

from __future__ import annotations

from collections.abc import Sequence

from source_server.domain.account import Account
from source_server.domain.refusal import Conflict, NotFound
from source_server.domain.rounds import Which
from source_server.services.tasks.send_round import SendRound, Sent
from source_server.services.tasks.tasks import Tasks


class Rerun:
    """Has tasks of the caller computed anew."""

    def __init__(self, tasks: Tasks, send: SendRound) -> None:
        self._tasks = tasks
        self._send = send

    def __call__(self, account: Account, task_id: str, which: Which, chunks: Sequence[str] = ()) -> Sent:
        """Begin a rerun; raises NotFound or Conflict. `chunks`: the ids, for `Which.CHUNKS`."""
        task = self._tasks.get(account, task_id)
        if task.validates is not None:
            raise Conflict(f"This only compares answers of the task {task.validates}: rerun that one.")
        for chunk in chunks:
            if chunk.rpartition(".")[0] != task.id:
                raise NotFound(f"There is no chunk {chunk} in this task.")
        return self._send.begin(task, which, anew=True, chunks=chunks)
