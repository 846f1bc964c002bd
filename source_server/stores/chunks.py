"""The chunks: read as values, written only against the revision that was read."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.chunk import (
    OPEN_STATES,
    Candidate,
    Chunk,
    ChunkState,
    Failure,
    Holder,
    Lease,
)
from source_server.stores.gate import Document, Gate

LEASED_CHUNKS = {"leases.until": {"$exists": True}}
NO_INPUT = {"input": 0}


class Chunks:
    """One document a chunk; see DISPATCH in the protocol's explanation for the fields."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "chunks")

    def ensure_indexes(self) -> None:
        """The three indexes that claims, heartbeats and expiry need, and no other."""
        self._gate.index([("task", 1), ("state", 1), ("assigned", 1), ("r", 1)], name="claim")
        for part in ("token", "until"):
            path = f"leases.{part}"
            self._gate.index([(path, 1)], name=part, partialFilterExpression={path: {"$exists": True}})

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Store new chunks; raises AlreadyThere if one of the ids exists."""
        self._gate.insert_many([_document(chunk) for chunk in chunks])

    def read(
        self, ids: Iterable[str], *, with_input: bool = False, majority: bool = False
    ) -> dict[str, Chunk]:
        """The chunks with these ids, by id; unknown ids are absent."""
        fields_ = None if with_input else NO_INPUT
        found = self._gate.find({"_id": {"$in": list(ids)}}, fields_, majority=majority)
        return {document["_id"]: _chunk(document) for document in found}

    def find(self, chunk_id: str) -> Chunk | None:
        """The chunk with this id and its input, or None."""
        return self.read([chunk_id], with_input=True).get(chunk_id)

    def apply(self, changes: Sequence[tuple[Chunk, Chunk]], *, quick: bool = False) -> set[str]:
        """Write each (as read, as wanted) pair unless the chunk has moved on; the ids of those written.

        Revisions are random: one that was rolled back by a failover can never be taken for another.
        """
        fresh = {old.id: secrets.randbits(62) for old, _ in changes}
        updates = [
            ({"_id": old.id, "rev": old.rev}, {"$set": {**_difference(old, new), "rev": fresh[old.id]}})
            for old, new in changes
        ]
        matched = self._gate.guarded(updates, quick=quick)
        if matched == len(changes):
            return set(fresh)
        if not matched:
            return set()
        found = self._gate.find({"_id": {"$in": list(fresh)}}, {"rev": 1})
        return {document["_id"] for document in found if document["rev"] == fresh[document["_id"]]}

    def candidates(
        self, task: str, upload: str, assigned: Holder | None, *, start: float, limit: int
    ) -> list[Chunk]:
        """Ready chunks of the task with this assignment, in random order from `start` on, then round."""
        query = {
            "task": task,
            "state": ChunkState.READY.value,
            "assigned": _holder(assigned),
            "upload": upload,
        }
        order = [("r", 1)]
        found = self._gate.find({**query, "r": {"$gte": start}}, NO_INPUT, sort=order, limit=limit)
        if len(found) < limit:
            found += self._gate.find(
                {**query, "r": {"$lt": start}}, NO_INPUT, sort=order, limit=limit - len(found)
            )
        return [_chunk(document) for document in found]

    def dealt(self, tasks: Sequence[str], holder: Holder, *, limit: int) -> list[Chunk]:
        """Ready chunks of these tasks that were assigned to this container's life."""
        query = {"task": {"$in": list(tasks)}, "state": ChunkState.READY.value, "assigned": _holder(holder)}
        return [_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def under_token(self, tokens: Sequence[str], *, with_input: bool = False) -> list[Chunk]:
        """The chunks that have a lease with one of these claim tokens, by number."""
        if not tokens:
            return []
        fields_ = None if with_input else NO_INPUT
        found = self._gate.find({"leases.token": {"$in": list(tokens)}}, fields_, sort=[("n", 1)])
        return [_chunk(document) for document in found]

    def leased(self, life: str | None = None) -> list[Chunk]:
        """The chunks that anyone, or this life, has leased."""
        query: dict[str, Any] = dict(LEASED_CHUNKS)
        if life is not None:
            query["leases.life"] = life
        return [_chunk(document) for document in self._gate.find(query, NO_INPUT)]

    def leased_lives(self) -> set[str]:
        """The lives that hold any lease."""
        return {str(life) for life in self._gate.distinct("leases.life", LEASED_CHUNKS)}

    def expired(self, now: datetime, *, limit: int) -> list[Chunk]:
        """Chunks with a lease whose deadline has passed."""
        query = {"leases.until": {"$lt": now}}
        return [_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def rested(self, task: str, now: datetime, *, limit: int) -> list[Chunk]:
        """Delayed chunks of the task whose pause is over."""
        query = {"task": task, "state": ChunkState.DELAYED.value, "not_before": {"$lte": now}}
        return [_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def open(self, task: str, *, limit: int) -> list[Chunk]:
        """Some chunks of the task that are neither done, quarantined nor cancelled."""
        query = {"task": task, "state": {"$in": [state.value for state in OPEN_STATES]}}
        return [_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def any_in(self, task: str, upload: str, states: Sequence[ChunkState]) -> bool:
        """Whether a majority's view of the task has a chunk in one of these states, of that upload attempt."""
        query = {"task": task, "state": {"$in": [state.value for state in states]}, "upload": upload}
        return bool(self._gate.find(query, {"_id": 1}, limit=1, majority=True))

    def counts(self, task: str) -> dict[str, int]:
        """How many chunks of the task are in each state; states without one are absent."""
        counted = {
            state.value: self._gate.count({"task": task, "state": state.value}) for state in ChunkState
        }
        return {state: count for state, count in counted.items() if count}

    def assigned_to(self, tasks: Sequence[str]) -> dict[tuple[str, str], int]:
        """(container, life) -> ready chunks of these tasks assigned to it."""
        rows = self._gate.aggregate(
            [
                {"$match": {"task": {"$in": list(tasks)}, "state": "ready", "assigned": {"$gt": {}}}},
                {"$group": {"_id": "$assigned", "n": {"$sum": 1}}},
            ]
        )
        return {(row["_id"]["container"], row["_id"]["life"]): row["n"] for row in rows}

    def leased_by(self) -> dict[str, int]:
        """container -> chunks it has leased."""
        rows = self._gate.aggregate(
            [
                {"$match": LEASED_CHUNKS},
                {"$unwind": "$leases"},
                {"$group": {"_id": "$leases.container", "n": {"$sum": 1}}},
            ]
        )
        return {row["_id"]: row["n"] for row in rows}

    def unassigned(self, task: str) -> int:
        """How many ready chunks of the task are assigned to nobody."""
        return self._gate.count({"task": task, "state": ChunkState.READY.value, "assigned": None})

    def unassign_all(self, tasks: Sequence[str], holder: Holder) -> int:
        """Give back all of a life's assignments in these tasks, in one pass; how many."""
        query = {"task": {"$in": list(tasks)}, "state": ChunkState.READY.value, "assigned": _holder(holder)}
        freed = 0
        # In batches: one update of a million documents takes longer than a socket waits.
        while ids := [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=10_000)]:
            change = {"$set": {"assigned": None, "rev": secrets.randbits(62)}}
            freed += self._gate.update_many({**query, "_id": {"$in": ids}}, change)
        return freed

    def remove_upload(self, task: str, attempt: str) -> int:
        """Delete the chunks that this upload attempt brought, and no other's."""
        return self._remove({"task": task, "upload": attempt})

    def remove_other_uploads(self, task: str, attempt: str) -> int:
        """Delete the task's chunks but those of this upload attempt."""
        return self._remove({"task": task, "upload": {"$ne": attempt}})

    def _remove(self, query: Document) -> int:
        # In batches: one delete of a million documents takes longer than a socket waits.
        removed = 0
        while ids := [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=5000)]:
            removed += self._gate.delete_many({**query, "_id": {"$in": ids}})
        return removed


def new_rev() -> int:
    """A revision for a chunk that is made new."""
    return secrets.randbits(62)


def _holder(holder: Holder | None) -> Document | None:
    # The order of the fields is part of an embedded document's identity in an index.
    return None if holder is None else {"container": holder.container, "life": holder.life}


def _value(value: Any) -> Any:
    if isinstance(value, ChunkState):
        return value.value
    if isinstance(value, Holder):
        return _holder(value)
    if isinstance(value, tuple):
        return [asdict(item) for item in value]
    return value


_FIELDS = tuple(field.name for field in fields(Chunk) if field.name not in ("id", "rev"))


def _difference(old: Chunk, new: Chunk) -> Document:
    return {name: _value(getattr(new, name)) for name in _FIELDS if getattr(new, name) != getattr(old, name)}


def _document(chunk: Chunk) -> Document:
    return {"_id": chunk.id, "rev": chunk.rev, **{name: _value(getattr(chunk, name)) for name in _FIELDS}}


def _chunk(document: Document) -> Chunk:
    known: dict[str, Any] = {name: document[name] for name in _FIELDS if name in document}
    assigned = known.get("assigned")
    known["assigned"] = None if assigned is None else Holder(**assigned)
    known["state"] = ChunkState(known["state"])
    known["leases"] = tuple(Lease(**lease) for lease in known["leases"])
    known["candidates"] = tuple(Candidate(**candidate) for candidate in known["candidates"])
    known["failed"] = tuple(Failure(**failure) for failure in known["failed"])
    return Chunk(id=document["_id"], rev=document["rev"], **known)
