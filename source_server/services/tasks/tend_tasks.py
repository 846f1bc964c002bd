"""Housekeeping of tasks: what a crash, or a lost race, left for somebody to do. Of each kind some a step, in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable

from source_server.domain.task import Task
from source_server.services.each import alone
from source_server.services.reactions.react import React
from source_server.services.rotation import Rotation
from source_server.services.tasks.append import Append
from source_server.services.tasks.complete import Complete
from source_server.services.tasks.examine import Examine
from source_server.services.tasks.upload import QUIET, ReceiveUpload
from source_server.stores.database import Stores
from source_server.stores.unfinished import Page

log = logging.getLogger(__name__)

RUNNING = 250  #: tasks looked at in one step, with some queries for each
FEW = 100  #: tasks of each other kind


class TendTasks:
    """One step: wakes rested chunks, adds rows, sweeps what was cancelled, completes, clears dead uploads."""

    def __init__(
        self,
        stores: Stores,
        *,
        react: React,
        append: Append,
        complete: Complete,
        examine: Examine,
        upload: ReceiveUpload,
    ) -> None:
        self._stores = stores
        self._react, self._append, self._complete = react, append, complete
        self._examine, self._upload = examine, upload
        found = stores.unfinished
        self._turns: tuple[tuple[Rotation, Callable[[Task], object]], ...] = (
            (Rotation(lambda after: found.appending(after, limit=FEW)), self._whole(append.finish)),
            (
                Rotation(lambda after: found.cancelled(after, limit=FEW)),
                complete.sweep_cancelled,
            ),
            (Rotation(lambda after: found.running(after, limit=RUNNING)), self._go_on),
            (Rotation(self._silent), self._whole(self._clean)),
        )

    def __call__(self) -> None:
        """Take the step."""
        with alone("rested chunks cannot be offered"):
            self._complete.wake()
        for turn, step in self._turns:
            for task in turn.next():
                with alone("task cannot go on", task=task.id):
                    step(task)

    def _whole(self, step: Callable[[Task], object]) -> Callable[[Task], object]:
        def with_contents(found: Task) -> None:
            task = self._stores.tasks.find(found.id)
            if task is not None:
                step(task)

        return with_contents

    def _go_on(self, task: Task) -> None:
        if task.reacts_to is not None:
            self._react.tend(task)
        if not task.examined:
            self._examine(task)
        self._complete.if_done(task.id)

    def _silent(self, after: str) -> Page:
        since = self._stores.clock.now() - 2 * QUIET
        return self._stores.unfinished.uploading(after, quiet_since=since, limit=FEW)

    def _clean(self, task: Task) -> None:
        if self._upload.clean(task):
            log.info("unfinished upload removed", extra={"task": task.id})
