"""The chunks: read as values, written only against the revision that was read."""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime

from pymongo.database import Database

from source_server.domain.chunk import OPEN_STATES, Chunk, ChunkState, Holder
from source_server.stores.chunk_documents import (
    NO_INPUT,
    chunk_document,
    difference,
    holder_document,
    read_chunk,
)
from source_server.stores.gate import Document, Gate

log = logging.getLogger(__name__)

LEASED_CHUNKS = {"leases.until": {"$exists": True}}
MARKS = 4  #: batches of deals that a chunk remembers


class Chunks:
    """One document a chunk; see DISPATCH in the protocol's explanation for the fields."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "chunks")

    def ensure_indexes(self) -> None:
        """Those that claims, heartbeats, expiry, limits of hosts, pauses after failures and the sweep of blobs need."""
        self._gate.index([("task", 1), ("state", 1), ("assigned", 1), ("r", 1)], name="claim")
        for part in ("token", "until", "host"):
            path = f"leases.{part}"
            self._gate.index([(path, 1)], name=part, partialFilterExpression={path: {"$exists": True}})
        named = {"has_files": True}
        self._gate.index([("task", 1), ("n", 1)], name="files", partialFilterExpression=named)
        delayed = {"state": ChunkState.DELAYED.value}
        self._gate.index([("not_before", 1)], name="delayed", partialFilterExpression=delayed)

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Store new chunks; raises AlreadyThere if one of the ids exists."""
        self._gate.insert_many([chunk_document(chunk) for chunk in chunks])

    def ensure(self, chunks: Sequence[Chunk]) -> None:
        """Have these chunks, but for those that are there."""
        self._gate.put_if_absent([chunk_document(chunk) for chunk in chunks])

    def read(
        self, ids: Iterable[str], *, with_input: bool = False, majority: bool = False
    ) -> dict[str, Chunk]:
        """The chunks with these ids, by id; unknown ids are absent."""
        fields_ = None if with_input else NO_INPUT
        found = self._gate.find({"_id": {"$in": list(ids)}}, fields_, majority=majority)
        return {document["_id"]: read_chunk(document) for document in found}

    def find(self, chunk_id: str) -> Chunk | None:
        """The chunk with this id and its input, or None."""
        return self.read([chunk_id], with_input=True).get(chunk_id)

    def apply(self, changes: Sequence[tuple[Chunk, Chunk]], *, quick: bool = False) -> set[str]:
        """Write each (as read, as wanted) pair unless the chunk has moved on; the ids of those written.

        Revisions are random: one that was rolled back by a failover can never be taken for another.
        """
        fresh = {old.id: secrets.randbits(62) for old, _ in changes}
        updates = [
            ({"_id": old.id, "rev": old.rev}, {"$set": {**difference(old, new), "rev": fresh[old.id]}})
            for old, new in changes
        ]
        matched = self._gate.guarded(updates, quick=quick)
        if matched == len(changes):
            return set(fresh)
        if not matched:
            return set()
        found = self._gate.find({"_id": {"$in": list(fresh)}}, {"rev": 1})
        return {document["_id"] for document in found if document["rev"] == fresh[document["_id"]]}

    def deal(self, changes: Sequence[tuple[Chunk, Chunk]], mark: str) -> int:
        """Write each (as read, as assigned) pair unless the chunk has moved on; how many were written.

        The mark stays with the chunk, whoever claims it in the next moment: `dealt_under` finds it.
        """
        noted = {"$push": {"dealt_by": {"$each": [mark], "$slice": -MARKS}}}
        updates = [
            (
                {"_id": old.id, "rev": old.rev},
                {"$set": {**difference(old, new), "rev": secrets.randbits(62)}, **noted},
            )
            for old, new in changes
        ]
        return self._gate.guarded(updates)

    def dealt_under(self, ids: Iterable[str], mark: str) -> set[str]:
        """Which of these chunks were dealt under this mark, whatever has become of them since."""
        found = self._gate.find({"_id": {"$in": list(ids)}, "dealt_by": mark}, {"_id": 1})
        return {document["_id"] for document in found}

    def dealt(self, tasks: Sequence[str], holder: Holder, *, limit: int) -> list[Chunk]:
        """Ready chunks of these tasks that were assigned to this container's life."""
        query = {
            "task": {"$in": list(tasks)},
            "state": ChunkState.READY.value,
            "assigned": holder_document(holder),
        }
        return [read_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def under_token(self, tokens: Sequence[str], *, with_input: bool = False) -> list[Chunk]:
        """The chunks that have a lease with one of these claim tokens, by number."""
        if not tokens:
            return []
        fields_ = None if with_input else NO_INPUT
        found = self._gate.find({"leases.token": {"$in": list(tokens)}}, fields_, sort=[("n", 1)])
        return [read_chunk(document) for document in found]

    def leased(self, lives: Iterable[str], *, host: str | None = None, limit: int) -> list[Chunk]:
        """Some of the chunks that these lives have leased; quick for lives on one host that is named."""
        query = {
            "leases.life": {"$in": list(lives)},
            **(LEASED_CHUNKS if host is None else {"leases.host": host}),
        }
        return [read_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def in_flight(self, account: str, host: str) -> int:
        """How many chunks this account's host has leased."""
        own = {"leases": {"$elemMatch": {"host": host, "account": account}}}
        return self._gate.count({"leases.host": host, **own})

    def in_flight_under(self, host: str, *, at_most: int) -> int:
        """How many chunks are leased under this host's id, whoever's it is: from the index alone, up to `at_most`."""
        return self._gate.count({"leases.host": host}, limit=at_most)

    def tokens_out(self) -> dict[tuple[str, str], datetime]:
        """(life, claim token) -> when the oldest lease under it began, for all leases there are."""
        rows = self._gate.aggregate(
            [
                {"$match": LEASED_CHUNKS},
                {"$project": {"_id": 0, "leases.life": 1, "leases.token": 1, "leases.since": 1}},
                {"$unwind": "$leases"},
                {
                    "$group": {
                        "_id": {"life": "$leases.life", "token": "$leases.token"},
                        "since": {"$min": "$leases.since"},
                    }
                },
            ]
        )
        return {(row["_id"]["life"], row["_id"]["token"]): row["since"] for row in rows}

    def leased_lives(self) -> set[str]:
        """The lives that hold any lease."""
        return {str(life) for life in self._gate.distinct("leases.life", LEASED_CHUNKS)}

    def expired(self, now: datetime, *, limit: int) -> list[Chunk]:
        """Chunks with a lease whose deadline has passed."""
        query = {"leases.until": {"$lt": now}}
        return [read_chunk(document) for document in self._gate.find(query, NO_INPUT, limit=limit)]

    def rested(self, now: datetime, *, limit: int) -> list[Chunk]:
        """Delayed chunks, of all tasks, whose pause is over; longest first. One that cannot be read stops no other."""
        query = {"state": ChunkState.DELAYED.value, "not_before": {"$lte": now}}
        found = []
        for document in self._gate.find(query, NO_INPUT, sort=[("not_before", 1)], limit=limit):
            try:
                found.append(read_chunk(document))
            except Exception:
                log.exception("stored chunk cannot be read", extra={"chunk": document["_id"]})
        return found

    def validating(self, task: str, *, limit: int) -> list[str]:
        """Ids of some chunks of the task whose candidates wait for a verdict, from a random place on."""
        query = {"task": task, "state": ChunkState.VALIDATING.value, "assigned": None}
        order = [("r", 1)]
        found = self._gate.find(
            {**query, "r": {"$gte": random.random()}}, {"_id": 1}, sort=order, limit=limit
        )
        if len(found) < limit:
            found += self._gate.find(query, {"_id": 1}, sort=order, limit=limit - len(found))
        return list({one["_id"]: None for one in found})

    def open(self, task: str, *, limit: int) -> list[Chunk]:
        """Some chunks of the task that a majority has as neither done, quarantined nor cancelled."""
        query = {"task": task, "state": {"$in": [state.value for state in OPEN_STATES]}}
        return [read_chunk(one) for one in self._gate.find(query, NO_INPUT, limit=limit, majority=True)]

    def any_in(self, task: str, upload: str, states: Sequence[ChunkState]) -> bool:
        """Whether a majority's view of the task has a chunk in one of these states, of that upload attempt."""
        query = {"task": task, "state": {"$in": [state.value for state in states]}, "upload": upload}
        return bool(self._gate.find(query, {"_id": 1}, limit=1, majority=True))

    def how_many_in(self, task: str, upload: str, states: Sequence[ChunkState], *, at_most: int) -> int:
        """How many of its chunks a majority's view of the task has in these states, counting up to `at_most`."""
        query = {"task": task, "state": {"$in": [state.value for state in states]}, "upload": upload}
        return self._gate.count(query, limit=at_most, majority=True)

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

    def dealt_lives(self, task: str) -> set[tuple[str, str]]:
        """(container, life) of those that ready chunks of the task are assigned to; looks at one chunk of each."""
        query = {"task": task, "state": ChunkState.READY.value, "assigned": {"$gt": {}}}
        return {(one["container"], one["life"]) for one in self._gate.distinct("assigned", query)}

    def leased_by(self) -> dict[tuple[str, str], int]:
        """(container, life) -> chunks it has leased."""
        rows = self._gate.aggregate(
            [
                {"$match": LEASED_CHUNKS},
                {"$project": {"_id": 0, "leases.container": 1, "leases.life": 1}},
                {"$unwind": "$leases"},
                {
                    "$group": {
                        "_id": {"container": "$leases.container", "life": "$leases.life"},
                        "n": {"$sum": 1},
                    }
                },
            ]
        )
        return {(row["_id"]["container"], row["_id"]["life"]): row["n"] for row in rows}

    def undealt(self, task: str, upload: str, *, after: float, limit: int) -> list[Chunk]:
        """Ready chunks of the task that are assigned to nobody, in the order of `r`, from behind `after` on."""
        query = {
            "task": task,
            "state": ChunkState.READY.value,
            "assigned": None,
            "upload": upload,
            "r": {"$gt": after},
        }
        found = self._gate.find(query, NO_INPUT, sort=[("r", 1)], limit=limit)
        return [read_chunk(document) for document in found]

    def ready(self, tasks: Sequence[str], *, at_most: int) -> int:
        """How many chunks of these tasks are ready, dealt to somebody or not; stops counting at `at_most`."""
        ready = {"task": {"$in": list(tasks)}, "state": ChunkState.READY.value}
        return self._gate.count(ready, limit=at_most) if tasks else 0

    def unassigned(self, task: str) -> int:
        """How many ready chunks of the task are assigned to nobody."""
        return self._gate.count({"task": task, "state": ChunkState.READY.value, "assigned": None})

    def unassign(self, tasks: Sequence[str], holder: Holder, *, limit: int) -> int:
        """Give back up to so many of a life's assignments in these tasks, in one write; how many."""
        held = {"state": ChunkState.READY.value, "assigned": holder_document(holder)}
        ids = [
            one["_id"]
            for one in self._gate.find({"task": {"$in": list(tasks)}, **held}, {"_id": 1}, limit=limit)
        ]
        # By id alone: with the task named, all that the life still has would be gone through for each batch.
        change = {"$set": {"assigned": None, "rev": secrets.randbits(62)}}
        return self._gate.update_many({"_id": {"$in": ids}, **held}, change) if ids else 0

    def remove_upload(self, task: str, attempt: str, *, most: int | None = None) -> int:
        """Delete the chunks that this upload attempt brought, `most` at most, and no other's; how many it were."""
        return self._remove({"task": task, "upload": attempt}, most)

    def remove_other_uploads(self, task: str, attempt: str) -> int:
        """Delete the task's chunks but those of this upload attempt."""
        return self._remove({"task": task, "upload": {"$ne": attempt}})

    def _remove(self, query: Document, most: int | None = None) -> int:
        # In batches: one delete of a million documents takes longer than a socket waits.
        removed = 0
        while most is None or removed < most:
            size = 5000 if most is None else min(5000, most - removed)
            ids = [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=size)]
            if not ids:
                break
            removed += self._gate.delete_many({**query, "_id": {"$in": ids}})
        return removed


def new_rev() -> int:
    """A revision for a chunk that is made new."""
    return secrets.randbits(62)
