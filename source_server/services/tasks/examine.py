"""Looks at a task's first attempts, once: when they fail alike everywhere, the task pauses itself."""

from __future__ import annotations

import logging

from source_server.domain.first_attempts import Ended, first_attempts_say
from source_server.domain.task import Task
from source_server.services.containers.live import LiveContainers
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

LOOKED_AT = 200  #: failed attempts, and answers, that are read


class Examine:
    """Judges from what is stored; a task is looked at until something can be said, and then no more."""

    def __init__(self, stores: Stores, live: LiveContainers) -> None:
        self._stores = stores
        self._live = live

    def __call__(self, task: Task) -> None:
        """Look at a running task that was not examined yet."""
        answers = self._stores.results.first(task.id, limit=LOOKED_AT)
        if answers is None:
            # With so many answers it does not fail everywhere, whatever came first.
            self._stores.tasks.note_examined(task.id, paused_why=None)
            return
        errors = self._stores.errors.first(task.id, limit=LOOKED_AT)
        ended = [(at, Ended(host=host, account=account)) for at, host, account in answers]
        ended += [(at, Ended(host=host, account=who, signature=how)) for at, host, who, how in errors]
        in_order = [one for _, one in sorted(ended, key=lambda pair: pair[0])]
        finding = first_attempts_say(in_order, self._live.now().fleet(task))
        if finding is None:
            return
        if self._stores.tasks.note_examined(task.id, paused_why=finding.why) and finding.why is not None:
            log.warning("task paused itself", extra={"task": task.id, "why": finding.why})
