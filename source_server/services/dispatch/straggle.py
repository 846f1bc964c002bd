"""Stragglers: chunks that are computed for far longer than usual get one attempt more, on another host."""

from __future__ import annotations

import random
from collections.abc import Collection
from datetime import datetime

from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.pace import LEAST_STRAGGLE_S, hedges, straggles, straggles_after
from source_server.domain.task import Task
from source_server.domain.transitions import MAY
from source_server.services.dispatch.hints import Hints
from source_server.services.dispatch.paces import Paces
from source_server.stores.database import Stores

WINDOW = 200  #: chunks under way that are looked at
FULL = "hedges"


class Stragglers:
    """Finds them, and says how many more may be helped."""

    def __init__(
        self,
        stores: Stores,
        *,
        hints: Hints,
        paces: Paces,
        dice: random.Random,
        least_s: float = LEAST_STRAGGLE_S,
    ) -> None:
        self._stores = stores
        self._hints = hints
        self._paces = paces
        self._dice = dice
        self._least_s = least_s

    def room(self, tasks: Collection[str], live: int) -> int:
        """How many hedges more these tasks may have among so many live containers."""
        if self._hints.holds(FULL):
            return 0
        most = hedges(live)
        left = max(0, most - self._stores.windows.hedged(list(tasks), limit=most))
        if not left:
            self._hints.note(FULL)
        return left

    def find(self, task: Task, now: datetime) -> list[Chunk]:
        """Some of the task's chunks that straggle and have had no hedge yet."""
        nothing = ("stragglers", task.id)
        if task.upload is None or self._hints.holds(nothing):
            return []
        window = self._stores.windows.look(
            task.id, task.upload.attempt, start=self._dice.random(), limit=WINDOW, state=ChunkState.LEASED
        )
        pace = self._paces.of(task.id) if window else None
        after_s = straggles_after(pace, timeout_s=task.job.timeout_s, least_s=self._least_s)
        slow = [one for one in window if MAY["hedge"](one) and straggles(one, now=now, after_s=after_s)]
        if not slow and len(window) < WINDOW:
            self._hints.note(nothing)
        return slow
