"""Canaries: settled chunks handed out once more, to see whether a host's answers can be believed."""

from __future__ import annotations

import random

from source_server.domain.canaries import can_test, is_new_to
from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.eligibility import Taker
from source_server.domain.task import Task
from source_server.stores.database import Stores

WINDOW = 20  #: settled chunks looked at


class Canaries:
    """Finds one that tests a given taker, and throws the dice for those that nothing is held against."""

    def __init__(self, stores: Stores, dice: random.Random) -> None:
        self._stores = stores
        self._dice = dice

    def due(self, task: Task) -> bool:
        """Whether a claim of this task's chunks is to have a canary among them."""
        return task.validation.canaries > 0 and self._dice.random() < task.validation.canaries

    def find(self, task: Task, taker: Taker) -> Chunk | None:
        """A settled chunk of the task whose answer this taker did not give; None where none was found."""
        if task.upload is None or task.validates is not None or task.reacts_to is not None:
            return None
        start = self._dice.random()
        window = self._stores.windows.look(
            task.id, task.upload.attempt, start=start, limit=WINDOW, state=ChunkState.DONE
        )
        tests = [one for one in window if can_test(one, taker)]
        # Best one that is new to the whole account: it cannot remember the answer, nor see that it is a test.
        return next((one for one in tests if is_new_to(one, taker.account)), tests[0] if tests else None)
