"""Windows on a task's chunks in the order of their random place `r`: what claims look through.

Every read goes by the index `claim`, from a random start and round, and stops after so many chunks: it takes as long
with a million of them as with a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.database import Database

from source_server.domain.chunk import MAX_LISTED, Chunk, ChunkState, Holder
from source_server.domain.eligibility import Crowd, Taker
from source_server.domain.validation import Distinct, Validation
from source_server.stores.chunk_documents import NO_INPUT, holder_document, read_chunk
from source_server.stores.gate import Document, Gate

IN_ORDER = [("r", 1)]


class Windows:
    """Chunks of one task and upload attempt, without their inputs."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "chunks")

    def look(
        self,
        task: str,
        upload: str,
        *,
        start: float,
        limit: int,
        state: ChunkState = ChunkState.READY,
        assigned: Holder | None = None,
    ) -> list[Chunk]:
        """Up to `limit` chunks in this state and with this assignment, from `start` on, then round."""
        query = _query(task, upload, state, assigned)
        found = self._gate.find({**query, "r": {"$gte": start}}, NO_INPUT, sort=IN_ORDER, limit=limit)
        if len(found) < limit:
            rest = {**query, "r": {"$lt": start}}
            found += self._gate.find(rest, NO_INPUT, sort=IN_ORDER, limit=limit - len(found))
        return [read_chunk(document) for document in found]

    def eligible(
        self,
        task: str,
        upload: str,
        taker: Taker,
        rule: Validation,
        crowd: Crowd,
        *,
        start: float,
        end: float,
        limit: int,
    ) -> list[Chunk]:
        """Up to `limit` free ready chunks with `start` <= r < `end`, in order, that this container may take.

        Under a quorum some of them may still be barred (see `bar`).
        """
        place = {"r": {"$gte": start, "$lt": end}}
        free = _query(task, upload, ChunkState.READY, None)
        query = {**free, **place, "$and": _not_barred(taker, rule, crowd)}
        found = self._gate.find(query, NO_INPUT, sort=IN_ORDER, limit=limit)
        return [read_chunk(document) for document in found]

    def hedged(self, tasks: Sequence[str], *, limit: int) -> int:
        """How many chunks of these tasks have an attempt more out than was asked for, counting up to `limit`."""
        out = {"$add": [{"$size": "$leases"}, {"$size": "$candidates"}]}
        query = {
            "task": {"$in": list(tasks)},
            "state": ChunkState.LEASED.value,
            "assigned": None,
            "leases.1": {"$exists": True},
            "$expr": {"$gt": [out, "$replicas"]},
        }
        return self._gate.count(query, limit=limit)


def _query(task: str, upload: str, state: ChunkState, assigned: Holder | None) -> Document:
    return {"task": task, "state": state.value, "assigned": holder_document(assigned), "upload": upload}


def _not_barred(taker: Taker, rule: Validation, crowd: Crowd) -> list[Document]:
    """What the database can check of `bar`. It never leaves out a chunk that may be taken; a test sees to that."""
    conditions: list[Document] = [{"leases.container": {"$ne": taker.container}}]
    if taker.variants:
        conditions.append({"variant": {"$in": [None, *taker.variants]}})
    if not rule.checks:
        return [*conditions, _not_failed_here(taker, crowd)]
    if rule.distinct is Distinct.VARIANT:
        return conditions
    for part in ("leases", "candidates"):
        conditions.append({part: {"$not": {"$elemMatch": _who(taker, rule.distinct)}}})
    return conditions


def _not_failed_here(taker: Taker, crowd: Crowd) -> Document:
    elsewhere = {"failed": {"$not": {"$elemMatch": {"account": taker.account, "host": taker.host}}}}
    beside = [one for one in crowd.takers if one.preferred or not taker.preferred]
    others = {(one.account, one.host) for one in beside} - {(taker.account, taker.host)}
    if len(others) > MAX_LISTED:  # more than a chunk's failures can name
        return elsewhere
    everywhere = [
        {"failed": {"$elemMatch": {"account": account, "host": host}}} for account, host in sorted(others)
    ]
    return {"$or": [elsewhere, {"$and": everywhere}]} if everywhere else {}


def _who(taker: Taker, distinct: Distinct) -> Document:
    named = {
        Distinct.ACCOUNT: {"account": taker.account},
        Distinct.HOST: {"account": taker.account, "host": taker.host},
        Distinct.CONTAINER: {"container": taker.container},
    }
    return named[distinct]
