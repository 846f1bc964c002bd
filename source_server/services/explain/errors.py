"""The error queue: failed attempts one by one and in groups, and another try for what was set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from source_server.domain.account import Account
from source_server.domain.reactions import companion_ids
from source_server.domain.refusal import Conflict, NotFound
from source_server.domain.rounds import Which
from source_server.domain.task import Task
from source_server.services.tasks.send_round import SendRound, Sent
from source_server.services.tasks.tasks import Tasks
from source_server.services.tasks.validate import companion_id
from source_server.stores.database import Stores
from source_server.stores.errors import Group

Error = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """A group of alike errors, with one of them, and how many of its chunks are set aside now."""

    group: Group
    quarantined: int
    sample: Error | None


class ErrorQueue:
    """Everybody sees the errors of their own tasks only, an admin all."""

    def __init__(self, stores: Stores, tasks: Tasks, send: SendRound) -> None:
        self._stores = stores
        self._tasks = tasks
        self._send = send

    def page(self, account: Account, task_id: str | None, *, after: str | None, limit: int) -> list[Error]:
        """Failed attempts of the caller's tasks, or of one, oldest first, from behind the one with the id `after`."""
        if task_id is not None:
            task = self._tasks.get(account, task_id)
            of = [*_with_companion(task), *companion_ids(task)]
            return list(self._stores.errors.page(of, after=after, limit=limit))
        return list(self._stores.errors.page(self._tasks.ids(account, None), after=after, limit=limit))

    def get(self, account: Account, error_id: str) -> Error:
        """The error with this id, whole; raises NotFound unless it is of the caller's task."""
        found = self._stores.errors.find(error_id)
        if found is not None:
            try:
                self._tasks.get(account, found["task"])
                return found
            except NotFound:
                pass
        raise NotFound(f"There is no error {error_id} of yours.")

    def groups(self, account: Account, task_id: str, *, limit: int) -> tuple[list[GroupReport], int]:
        """The largest groups of a task's errors, and how many groups there are."""
        of = _with_companion(self._tasks.get(account, task_id))
        found = self._stores.errors.groups(of)
        found.sort(key=lambda one: (-one.count, one.task, one.signature))
        shown = found[:limit]
        aside = {task: self._stores.set_aside.counts(task) for task in {one.task for one in shown}}
        samples = self._stores.errors.samples(shown)
        reports = [
            GroupReport(
                group=one,
                quarantined=aside[one.task].get(one.signature, 0),
                sample=samples.get((one.task, one.signature)),
            )
            for one in shown
        ]
        return reports, len(found)

    def requeue_task(self, account: Account, task_id: str, signature: str | None = None) -> Sent:
        """Give what a task has set aside (with a signature: for it) another round; raises NotFound or Conflict."""
        task = self._tasks.get(account, task_id)
        which = Which.FAILED if signature is None else Which.SIGNATURE
        of = _with_companion(task)
        if signature is not None and not any(
            self._stores.errors.count(one, signature, limit=1) for one in of
        ):
            raise NotFound("No error of this task has this signature.")
        sent = self._send.begin(task, which, anew=False, signature=signature)
        if len(of) == 1:
            return sent
        of_companion = self._of_companion(of[1], which, signature)
        return Sent(chunks=sent.chunks + of_companion.chunks, done=sent.done and of_companion.done)

    def requeue_chunks(self, account: Account, chunk_ids: Sequence[str]) -> Sent:
        """Give those of these chunks that were set aside another round; raises NotFound or Conflict."""
        chunks = self._stores.chunks.read(chunk_ids)
        tasks: dict[str, Task] = {}
        for chunk_id in chunk_ids:
            chunk = chunks.get(chunk_id)
            if chunk is None:
                raise NotFound(f"There is no chunk {chunk_id} of yours.")
            if chunk.task not in tasks:
                tasks[chunk.task] = self._tasks.get(account, chunk.task)
        sent = [
            self._send.begin(
                task,
                Which.CHUNKS,
                anew=False,
                chunks=[one for one in chunk_ids if chunks[one].task == task_id],
            )
            for task_id, task in tasks.items()
        ]
        return Sent(chunks=sum(one.chunks for one in sent), done=all(one.done for one in sent))

    def _of_companion(self, companion: str, which: Which, signature: str | None) -> Sent:
        """The chunks that compare answers of the task may have been set aside too: then nothing of it would end."""
        nothing = Sent(chunks=0, done=True)
        for _ in range(3):
            task = self._stores.tasks.find(companion)
            parent = None if task is None else self._stores.tasks.find(task.validates or "")
            if task is None or parent is None or parent.ended is not None or task.round is not None:
                return nothing
            try:
                return self._send.begin(task, which, anew=False, signature=signature)
            except Conflict:
                continue  # a round of its task has just made it run again
        return nothing


def _with_companion(task: Task) -> list[str]:
    return [task.id] if task.validator is None else [task.id, companion_id(task.id)]
