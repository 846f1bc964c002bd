"""A template and data become a task that runs. Broken off anywhere and done again, it comes to the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from source_server.domain.account import Account
from source_server.domain.receiver import Receiver
from source_server.domain.refusal import Conflict, Refusal, Unavailable
from source_server.domain.table import MAX_LINE
from source_server.domain.task import Task, TaskState
from source_server.receivers.plug import template_body
from source_server.services.accounts.people import People
from source_server.services.tasks.tasks import Tasks
from source_server.services.tasks.upload import ReceiveUpload
from source_server.web.bodies.task_wish import wish

log = logging.getLogger(__name__)

UPLOAD = "received"  #: the id of the one upload of such a task


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows for a task: their type (text/csv, application/jsonl, ...) and, each time it is asked, their lines."""

    kind: str
    lines: Callable[[], Iterable[bytes]]
    bytes_per_chunk: int | None = None


def lines_of(content: IO[bytes]) -> Iterator[bytes]:
    """All of a content from its beginning, in pieces that end with a line or at the limit of lines."""
    content.seek(0)
    while line := content.readline(MAX_LINE + 1):
        yield line


class Fill:
    """Makes tasks in the name of the project's owner."""

    def __init__(self, people: People, tasks: Tasks, upload: ReceiveUpload) -> None:
        self._people = people
        self._tasks = tasks
        self._upload = upload

    def __call__(self, receiver: Receiver, template: Mapping[str, Any], task_id: str, data: Data) -> str:
        """The id of the task, which is there, has this data and is started; raises a Refusal.

        Data that does not fit leaves the task cancelled.
        """
        owner = self._people.owner_of(receiver.project)
        body = template_body(template, task_id)
        wished = replace(wish(receiver.project, body), origin=receiver.id)
        task, _ = self._tasks.add(owner, receiver.project, wished)
        if task.cancelled:
            raise Conflict(f"Its task {task.id} has been cancelled.")
        if task.state is TaskState.WAITING:
            self._load(owner, task, data)
            self._tasks.start(owner, task.id)
        return task.id

    def owner_of(self, task_id: str) -> str | None:
        """Whose task has this id; None: nobody's."""
        return self._tasks.owner_of(task_id)

    def _load(self, owner: Account, task: Task, data: Data) -> None:
        try:
            self._upload(task, UPLOAD, data.kind, data.lines(), bytes_per_chunk=data.bytes_per_chunk)
        except Unavailable:
            raise
        except Refusal:
            self._tasks.cancel(owner, task.id)  # without its data it is of no use to anybody
            raise
