"""Chunks that were set aside: which, and for what."""

from __future__ import annotations

from typing import Any

from pymongo.database import Database

from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.signature import DISAGREEMENT
from source_server.stores.chunk_documents import NO_INPUT, read_chunk
from source_server.stores.gate import Document, Gate

#: In the database's words what `rounds.set_aside_for` says of a disagreement.
_DISAGREED = {"$gte": [{"$size": "$candidates"}, {"$ifNull": ["$replicas", 1]}]}


class SetAside:
    """Reads the collection of chunks; all of its questions go by task and state."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "chunks")

    def some(self, task: str, *, after: float, limit: int, signature: str | None = None) -> list[Chunk]:
        """Quarantined chunks of the task (with a signature: set aside for it), by `r`, from behind `after` on."""
        query: dict[str, Any] = {**_in(task), "assigned": None, "r": {"$gt": after}}
        if signature == DISAGREEMENT:
            query["$expr"] = _DISAGREED
        elif signature is not None:
            query["failed.signature"] = signature
        found = self._gate.find(query, NO_INPUT, sort=[("r", 1)], limit=limit)
        return [read_chunk(document) for document in found]

    def counts(self, task: str) -> dict[str, int]:
        """signature -> quarantined chunks of the task that were set aside for it."""
        disagreed = {"$cond": [_DISAGREED, [DISAGREEMENT], []]}
        rows = self._gate.aggregate(
            [
                {"$match": _in(task)},
                {"$project": {"signature": {"$setUnion": ["$failed.signature", disagreed]}}},
                {"$unwind": "$signature"},
                {"$group": {"_id": "$signature", "count": {"$sum": 1}}},
            ]
        )
        return {row["_id"]: row["count"] for row in rows}


def _in(task: str) -> Document:
    return {"task": task, "state": ChunkState.QUARANTINED.value}
