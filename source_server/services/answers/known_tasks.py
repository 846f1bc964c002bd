"""Tasks as verdicts need them: what never changes about a task is read once in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from source_server.domain.task import Task
from source_server.stores.database import Stores

MOST = 2000  #: tasks remembered
#: After which all is read anew: the id of a deleted task may stand for another one a minute later.
OLD_S = 30.0


class KnownTasks:
    """Rule and requirements of a task are fixed when it is made; only those may be taken from here.

    What its job and its validator execute is left out: of each, the command line and the environment are empty.
    """

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._begun = monotonic()
        self._lock = threading.Lock()
        self._known: dict[str, Task] = {}

    def read(self, ids: Iterable[str]) -> dict[str, Task]:
        """task id -> the task, with its state as of an earlier moment; unknown ids are absent."""
        wanted = set(ids)
        with self._lock:
            if self._monotonic() - self._begun > OLD_S:
                self._known, self._begun = {}, self._monotonic()
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
