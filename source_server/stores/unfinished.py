"""Tasks that something is to be done about: each kind found by an index of its own, and read page by page.

What is looked at every second must cost the same however many tasks there are, so a page has an end, and tasks come
without their contents: whoever needs a task whole reads it by its id.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pymongo.database import Database

from source_server.domain.task import Task, TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.task_documents import CONTENTS, read_without_contents, readable
from source_server.stores.tasks import CLAIMABLE

log = logging.getLogger(__name__)

_TURN = [("state", 1), ("_id", 1)]
_RUNNING: Document = {"state": TaskState.RUNNING.value}
_WAITING: Document = {"state": TaskState.WAITING.value, "validates": None, "deleting": None}
_EITHER: Document = {
    "state": {"$in": [TaskState.RUNNING.value, TaskState.WAITING.value]},
    "deleting": None,
    # A validator's task that waits is left alone: it ends with the task whose answers it compares.
    "$nor": [{"state": TaskState.WAITING.value, "validates": {"$type": "string"}}],
}
_APPENDING: Document = {"appending": {"$type": "object"}}
_CANCELLED: Document = {"cancelled": True}
_UPLOADING: Document = {"upload.complete": False}
_WANTED: Document = {"start_wanted": True}
_CHECKED: Document = {"validation.quorum": {"$gt": 1}}
_DEALT: Document = {"dealt": True}
_LIMITED: Document = {"limits": {"$type": "object"}}
_ENDING: Document = {"ends_as": {"$type": "string"}}


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some tasks, without their contents, in the order of their ids."""

    tasks: tuple[Task, ...]
    after: str  #: where the next page begins; empty: at the beginning again


class Unfinished:
    """Reads the collection of tasks; writes nothing."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def ensure_indexes(self) -> None:
        """All tasks by state, and in a small index each those of one kind."""
        self._gate.index(_TURN, name="turn")
        self._gate.index(_TURN, name="appending", partialFilterExpression=_APPENDING)
        self._gate.index(_TURN, name="cancelled", partialFilterExpression=_CANCELLED)
        self._gate.index(_TURN, name="uploading", partialFilterExpression=_UPLOADING)
        self._gate.index(_TURN, name="wanted", partialFilterExpression=_WANTED)
        self._gate.index(_TURN, name="checked", partialFilterExpression=_CHECKED)
        self._gate.index(_TURN, name="dealt", partialFilterExpression=_DEALT)
        self._gate.index(_TURN, name="limited", partialFilterExpression=_LIMITED)
        self._gate.index(_TURN, name="ending", partialFilterExpression=_ENDING)

    def running(self, after: str, *, limit: int) -> Page:
        """Running tasks that were not cancelled."""
        return self._page({**_RUNNING, "cancelled": False}, after, limit)

    def appending(self, after: str, *, limit: int) -> Page:
        """Tasks that rows are being added to, or were when a process died."""
        return self._page({**_EITHER, **_APPENDING}, after, limit)

    def cancelled(self, after: str, *, limit: int) -> Page:
        """Cancelled tasks that are not complete yet."""
        return self._page({**_EITHER, **_CANCELLED}, after, limit)

    def uploading(self, after: str, *, quiet_since: datetime, limit: int) -> Page:
        """Waiting tasks with an unfinished upload that nobody has gone on with since then."""
        quiet = {"cancelled": False, "upload.touched": {"$lt": quiet_since}}
        return self._page({**_WAITING, **_UPLOADING, **quiet}, after, limit)

    def waiting_for_others(self, after: str, *, limit: int) -> Page:
        """Tasks that were started, and wait for those that they come after."""
        return self._page({**_WAITING, **_WANTED, "cancelled": False}, after, limit)

    def checked(self, after: str, *, limit: int) -> Page:
        """Running tasks of which one answer alone does not decide."""
        return self._page({**_RUNNING, **_CHECKED}, after, limit)

    def dealt_on_offer(self, after: str, *, limit: int) -> Page:
        """Tasks on offer that a deal has ended of."""
        return self._page({**CLAIMABLE, **_DEALT}, after, limit)

    def dealt(self) -> list[str]:
        """Ids of all running tasks that a deal has ended of."""
        return [one["_id"] for one in self._gate.find({**_RUNNING, **_DEALT}, {"_id": 1})]

    def named(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks with these ids, whatever became of them, by id."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, CONTENTS) if ids else []
        return {task.id: task for task in readable(found, read_without_contents)}

    def limited(self, after: str, *, limit: int) -> Page:
        """Running tasks with limits."""
        return self._page({**_RUNNING, **_LIMITED}, after, limit)

    def ending(self, after: str, *, limit: int) -> Page:
        """Running tasks that end because of their limits."""
        return self._page({**_RUNNING, **_ENDING}, after, limit)

    def _page(self, query: Document, after: str, limit: int) -> Page:
        query = {**query, "_id": {"$gt": after}}
        found = self._gate.find(query, CONTENTS, sort=[("_id", 1)], limit=limit)
        return Page(
            tasks=tuple(readable(found, read_without_contents)),
            after=found[-1]["_id"] if len(found) == limit else "",
        )
