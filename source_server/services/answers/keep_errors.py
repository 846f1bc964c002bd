"""Failed attempts as they are kept: with their signature, and as much of stderr as their group has room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from source_server.domain.attempt import Attempt, Origin
from source_server.domain.chunk import Chunk
from source_server.domain.signature import FULL_TAILS, OTHERS, kept, signature
from source_server.stores.database import Stores
from source_server.stores.errors import Said, error_document
from source_server.stores.gate import Document


class KeepErrors:
    """Makes the documents; reads the inputs of the chunks that failed, and of no others."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def documents(
        self, attempts: Sequence[Attempt], origin: Origin, chunks: Mapping[str, Chunk], now: datetime
    ) -> list[Document]:
        """What is to be stored of these failed attempts at these chunks (by id)."""
        if not attempts:
            return []
        named = self._named(attempts, chunks)
        full: Counter[tuple[str, str]] = Counter()
        documents = []
        for attempt, name in zip(attempts, named, strict=True):
            chunk = chunks[attempt.chunk]
            group = (chunk.task, name)
            if group not in full:
                # Two servers at once may both see the last place free: a few tails more do no harm.
                full[group] = self._stores.errors.count(chunk.task, name, limit=FULL_TAILS)
            full[group] += 1
            said = Said(
                *(kept(one, whole=full[group] <= FULL_TAILS) for one in (attempt.stdout, attempt.stderr_tail))
            )
            documents.append(error_document(attempt, origin, chunk, now, signature=name, said=said))
        return documents

    def _named(self, attempts: Sequence[Attempt], chunks: Mapping[str, Chunk]) -> list[str]:
        """The signature of each, or OTHERS where the task has too many different ones."""
        read = self._stores.chunks.read({one.chunk for one in attempts}, with_input=True)
        inputs = {chunk_id: chunk.input for chunk_id, chunk in read.items()}
        named = [(chunks[one.chunk].task, signature(one, inputs.get(one.chunk))) for one in attempts]
        by_task: dict[str, set[str]] = {}
        for task, name in named:
            by_task.setdefault(task, set()).add(name)
        admitted = {task: self._stores.error_groups.admitted(task, names) for task, names in by_task.items()}
        return [name if name in admitted[task] else OTHERS for task, name in named]
