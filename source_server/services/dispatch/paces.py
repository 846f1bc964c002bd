"""How long tasks' attempts take: summed in each process, written every few seconds, read at most as often."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from source_server.domain.pace import Pace, pace_of
from source_server.domain.refusal import Unavailable
from source_server.stores.database import Stores
from source_server.stores.paces import KEPT, Record

log = logging.getLogger(__name__)

FLUSH_S = 3.0
FRESH_S = 2.0
MOST_TASKS = 2000  #: tasks that a process has figures of
FLUSHED = 50  #: tasks written in one go


@dataclass
class _Ended:
    """Attempts that ended and are not written yet."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    ok: int = 0
    failed: int = 0


class Paces:
    """Hints for the sizes of claims, for charges and for stragglers; one for each process."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ended: dict[str, _Ended] = {}
        self._known: dict[str, tuple[float, Record]] = {}
        self._flush_at = monotonic() + FLUSH_S

    def finished(self, task: str, seconds: float, ok: bool) -> None:
        """An attempt at one of the task's chunks took so long, and came to an answer or not. Never raises."""
        with self._lock:
            if len(self._ended) >= MOST_TASKS and task not in self._ended:
                self._ended.clear()  # the database has not answered for long
            ended = self._ended.setdefault(task, _Ended())
            ended.recent.append(seconds)
            ended.ok += ok
            ended.failed += not ok
        self.flush_if_due()

    def of(self, task: str) -> Pace | None:
        """The task's figures, a few seconds old; None when nothing of it has ended yet."""
        record = self._record(task)
        with self._lock:
            ended = self._ended.get(task, _Ended())
            recent = (*record.recent, *ended.recent)[-KEPT:]
            return pace_of(recent, record.ok + record.failed + ended.ok + ended.failed)

    def flush_if_due(self) -> None:
        """Write the sums if it is time to."""
        with self._lock:
            if self._monotonic() < self._flush_at:
                return
            self._flush_at = self._monotonic() + FLUSH_S
            due = {task: self._ended.pop(task) for task in list(self._ended)[:FLUSHED]}
            for task in due:
                self._known.pop(task, None)
        try:
            for task, ended in due.items():
                self._stores.paces.add(task, ended.recent, ok=ended.ok, failed=ended.failed)
        except Unavailable as error:
            log.warning("paces not written", extra={"reason": str(error)})

    def _record(self, task: str) -> Record:
        with self._lock:
            until, record = self._known.get(task, (0.0, Record()))
            if until > self._monotonic():
                return record
        record = self._stores.paces.find(task)
        with self._lock:
            if len(self._known) >= MOST_TASKS:
                self._known.clear()
            self._known[task] = (self._monotonic() + FRESH_S, record)
        return record
