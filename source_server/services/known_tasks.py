"""Tasks as verdicts need them: what never changes about a task is read once in a process."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from source_server.domain.task import Task
from source_server.stores.database import Stores

MOST = 2000  #: tasks remembered


class KnownTasks:
    """Rule and requirements of a task are fixed when it is made; only those may be taken from here.

    What its job and its validator execute is left out: of each, the command line and the environment are empty.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._known: dict[str, Task] = {}

    def read(self, ids: Iterable[str]) -> dict[str, Task]:
        """task id -> the task, with its state as of an earlier moment; unknown ids are absent."""
        wanted = set(ids)
        with self._lock:
            found = {one: self._known[one] for one in wanted if one in self._known}
        missing = wanted - found.keys()
        if missing:
            read = self._stores.tasks.rules(sorted(missing))
            found |= read
            with self._lock:
                if len(self._known) + len(read) > MOST:
                    self._known.clear()
                self._known |= read
        return found
