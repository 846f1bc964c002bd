"""Messages about tasks are written into the outbox when something has happened that somebody wants to hear of."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime, timedelta
from typing import Any

from source_server.domain.notice import Event, Notice, notice_id
from source_server.domain.task import Task, TaskState
from source_server.domain.timing import instant
from source_server.services.each import alone
from source_server.stores.database import Stores

BATCH = 200  #: tasks looked at in one step
KEEP = timedelta(days=90)  #: how long a message that has ended is shown
KEY_PREFIX = "whsec_"


class Notices:
    """What is to be told of a task is said by the task itself: the outbox follows from it, whoever writes it."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def step(self) -> None:
        """Housekeeping: write what tasks have to tell, and forget what was told long ago."""
        for task_id in self._stores.limited.untold(limit=BATCH):
            with alone("messages about a task cannot be written", task=task_id):
                self.tell(task_id)
        self._stores.outbox.remove_old(self._stores.clock.now(), keep=KEEP, limit=1000)

    def tell(self, task_id: str) -> None:
        """Put the messages about the task's last event into the outbox; as often as one likes."""
        task = self._stores.tasks.find(task_id)
        if task is None or task.told:
            return
        event = _event(task)
        if event is not None and task.notify:
            self._stores.outbox.put(self._messages(task, event))
        self._stores.limited.note_told(task)

    def of(self, task: Task) -> list[Notice]:
        """The task's newest messages, newest first."""
        return self._stores.outbox.of_task(task.id, since=task.created)

    def new_key(self, project: str) -> str:
        """Give the project a new key for its webhooks, and show it this once: `whsec_` and base64."""
        key = secrets.token_bytes(32)
        self._stores.webhook_keys.replace(project, key, self._stores.clock.now())
        return KEY_PREFIX + base64.b64encode(key).decode()

    def _messages(self, task: Task, event: Event) -> list[Notice]:
        now = self._stores.clock.now()
        occasion = task.rounds if event is Event.COMPLETED else task.self_pauses
        body = json.dumps(_body(task, event, self._stores.chunks.counts(task.id), now))
        return [
            Notice(
                id=notice_id(task.id, task.created, event, occasion, target, place),
                task=task.id,
                project=task.project,
                owner=task.owner,
                event=event,
                target=target,
                body=body,
                created=now,
                due=now,
            )
            for place, target in enumerate(task.notify)
        ]


def _event(task: Task) -> Event | None:
    """What there is to tell of a task as it stands; None: what there was is over."""
    if task.state is TaskState.COMPLETE:
        return Event.COMPLETED
    return Event.PAUSED if task.paused and task.paused_why is not None else None


def _body(task: Task, event: Event, chunks: dict[str, int], now: datetime) -> dict[str, Any]:
    told: dict[str, Any] = {
        "task": task.id,
        "project": task.project,
        "name": task.name,
        "state": task.state.value,
        "outcome": None if task.outcome is None else task.outcome.value,
        "why": task.ended_why if event is Event.COMPLETED else task.paused_why,
        "rows": 0 if task.upload is None else task.upload.rows,
        "chunks": {"total": 0 if task.upload is None else task.upload.chunks, **chunks},
        "started": instant(task.started),
        "ended": instant(task.ended),
    }
    return {"type": event.value, "timestamp": instant(now), "data": told}
