"""What became of a task's reactions, for people, and for the reaction that comes after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.reactions import rounds_of
from source_server.domain.task import Task
from source_server.stores.database import Stores

SHOWN = 4096  #: letters of an answer, or of what is known of a failure
MOST = 20  #: companions told of, the newest; with two for a decision, those of the last ten
MOST_ATTEMPTS = 1000  #: attempts counted


@dataclass(frozen=True, kw_only=True)
class ReactionReport:
    """A companion and what became of it."""

    companion: Task
    current: bool  #: it reacts to the present outcome; the others are history
    answer: str | None = None
    error: str | None = None  #: how its last attempt failed, while it has no answer
    attempts: int = 0


class ReactionReports:
    """Reads companions, and what they said."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(self, task: Task) -> list[ReactionReport]:
        """The companions of the task, of all its rounds, oldest first."""
        if not (task.success or task.failure or task.after):
            return []
        found = self._stores.reactions.companions(task.id, limit=MOST)
        return [self.of(task, one) for one in reversed(found)]

    def of(self, task: Task, companion: Task) -> ReactionReport:
        """What became of one of them."""
        chunk_id = f"{companion.id}.0"
        chunk = self._stores.chunks.read([chunk_id]).get(chunk_id)
        answer = None if chunk is None else self._answer(chunk)
        return ReactionReport(
            companion=companion,
            current=task.outcome is not None and rounds_of(companion) == task.rounds,
            answer=answer,
            error=None if chunk is None or answer is not None else self._error(chunk),
            attempts=self._stores.history.count(chunk_id, limit=MOST_ATTEMPTS),
        )

    def _answer(self, chunk: Chunk) -> str | None:
        if chunk.state is not ChunkState.DONE or chunk.result is None:
            return None
        answer = self._stores.results.answers([chunk.result]).get(chunk.result)
        return None if answer is None else answer[:SHOWN]

    def _error(self, chunk: Chunk) -> str | None:
        named = [failure.error for failure in reversed(chunk.failed)]
        if not named and chunk.state is ChunkState.QUARANTINED:
            # Without a failure of its own: its answers do not agree, or were never compared.
            named = [one["_id"] for one in self._stores.errors.history(chunk.id, limit=1)]
        for error in named:
            found = self._stores.errors.find(error)
            if found is not None:
                return _in_words(found)
        return None


def _in_words(error: Mapping[str, Any]) -> str:
    return f"{error['signature']}\n{str(error['stderr_tail'])[-SHOWN:]}".strip()
