"""All attempts, answers and failures together, newest first: of a task, or of a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.stores.gate import Document, Gate

SHOWN = 4096  #: letters of an answer


@dataclass(frozen=True, kw_only=True)
class Place:
    """Behind which attempt a page begins."""

    stored: datetime
    id: str


class History:
    """Reads the collections of results and of errors."""

    def __init__(self, database: Database[Document]) -> None:
        self._attempts = [Gate(database, name) for name in ("results", "errors")]

    def ensure_indexes(self) -> None:
        """A task's answers in their order; its errors have such an index already."""
        self._attempts[0].index([("task", 1), ("stored", 1), ("_id", 1)], name="listed")

    def of_task(self, task: str, *, after: Place | None, limit: int) -> list[Document]:
        """A page of the task's attempts; an answer is cut at SHOWN letters, and `answer_letters` says its length."""
        return self._page({"task": task}, after, limit)

    def of_chunk(self, chunk: str, *, after: Place | None, limit: int) -> list[Document]:
        """The same of one chunk, of all its runs."""
        return self._page({"chunk": chunk}, after, limit)

    def count(self, chunk: str, *, limit: int) -> int:
        """How many attempts at the chunk are stored, counting up to `limit`."""
        return min(limit, sum(gate.count({"chunk": chunk}, limit=limit) for gate in self._attempts))

    def _page(self, of: Document, after: Place | None, limit: int) -> list[Document]:
        # Attempts that only tested a host are nobody's but the server's.
        query: dict[str, Any] = {**of, "canary": {"$ne": True}}
        if after is not None:
            earlier = {"stored": {"$lt": after.stored}}
            query["$or"] = [earlier, {"stored": after.stored, "_id": {"$lt": after.id}}]
        pipeline: list[Document] = [
            {"$match": query},
            {"$sort": {"stored": -1, "_id": -1}},
            {"$limit": limit},
            {"$set": _CUT},
        ]
        found = [one for gate in self._attempts for one in gate.aggregate(pipeline)]
        return sorted(found, key=lambda one: (one["stored"], one["_id"]), reverse=True)[:limit]


#: A page of whole answers would be megabytes; of one that was dropped, or of a failure, there is nothing to cut.
_CUT = {
    "answer_letters": {"$strLenCP": {"$ifNull": ["$answer", ""]}},
    "answer": {
        "$cond": [
            {"$eq": [{"$type": "$answer"}, "string"]},
            {"$substrCP": ["$answer", 0, SHOWN]},
            "$$REMOVE",
        ]
    },
}
