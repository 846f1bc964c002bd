"""Exit 65 that was right says nothing against its host: what the host lost by it is given back.

Every failure halves what its host may have in flight, at once: nobody knows yet who is right, and a host that answers
65 to everything must not drain a queue. When a second host says the same of a chunk, or the server's own arithmetic
says it of a calculation, the failure is confirmed. The cost lies with the host's record under the error's id, so that
it is given back once, whoever says so how often.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from source_server.domain.calculation import PROJECT, has_no_answer
from source_server.domain.chunk import Chunk
from source_server.domain.quarantine import is_confirmed_bad
from source_server.domain.task import Task
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Reputation
from source_server.services.containers.live import LiveContainers
from source_server.stores.database import Stores


class Forgive:
    """Looks at chunks of which a program said that the data is bad. Like all of a reputation it is a hint."""

    def __init__(
        self, stores: Stores, *, known: KnownTasks, live: LiveContainers, reputation: Reputation
    ) -> None:
        self._stores, self._known, self._live, self._reputation = stores, known, live, reputation

    def __call__(self, chunk_ids: Collection[str]) -> None:
        """Give hosts back what it cost them to have been right about these chunks, as a majority has them."""
        if not chunk_ids:
            return
        found = self._stores.chunks.read(chunk_ids, majority=True)
        tasks = self._known.read({one.task for one in found.values()})
        chunks = [one for one in found.values() if one.task in tasks]
        calculations = [one.id for one in chunks if tasks[one.task].project == PROJECT]
        inputs = self._stores.chunks.read(calculations, with_input=True) if calculations else {}
        self._reputation.forgive(
            failure
            for one in chunks
            if self._is_confirmed(tasks[one.task], one, inputs)
            for failure in one.failed
            if failure.bad_data
        )

    def _is_confirmed(self, task: Task, chunk: Chunk, inputs: Mapping[str, Chunk]) -> bool:
        if is_confirmed_bad(chunk, self._live.now().fleet(task)):
            return True
        row = inputs.get(chunk.id)
        return row is not None and _has_no_answer(row.input)


def _has_no_answer(text: str | None) -> bool:
    try:
        row = json.loads(text or "{}")
    except (ValueError, RecursionError):  # somebody else's project of this name
        return False
    return isinstance(row, dict) and has_no_answer(row)
