"""The one gate to MongoDB: every call goes through it, and every failure leaves it under a name of ours.

Reads go to the primary and arrive complete (lists, no open cursors). Writes are durable (majority, journaled, five
seconds at most) unless the caller says that losing one costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from source_server.domain.refusal import Unavailable

Document = dict[str, Any]
Filter = Mapping[str, Any]

DURABLE = WriteConcern(w="majority", j=True, wtimeout=5000)
QUICK = WriteConcern(w=1)
DUPLICATE_KEY = 11000


class DatabaseUnavailable(Unavailable):
    """The database did not answer in time: what was to be written may or may not have been."""


class AlreadyThere(Exception):
    """A document with this id, or this unique value, exists."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours, with their cause."""
    try:
        yield
    except DuplicateKeyError as error:
        raise AlreadyThere from error
    except PyMongoError as error:
        raise DatabaseUnavailable(
            "The database did not answer in time; send the same request again."
        ) from error


class Gate:
    """One collection. `quick=True` writes are acknowledged by the primary alone and may be rolled back."""

    def __init__(self, database: Database[Document], name: str) -> None:
        self._durable: Collection[Document] = database.get_collection(name, write_concern=DURABLE)
        self._quick: Collection[Document] = database.get_collection(name, write_concern=QUICK)
        self._majority: Collection[Document] = database.get_collection(
            name, read_concern=ReadConcern("majority")
        )

    def _for_writing(self, quick: bool) -> Collection[Document]:
        return self._quick if quick else self._durable

    def find(
        self,
        query: Filter,
        fields: Mapping[str, int] | None = None,
        *,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        majority: bool = False,
    ) -> list[Document]:
        """All documents that match, at most `limit` (0: no bound), from the primary."""
        source = self._majority if majority else self._durable
        with translated():
            return list(
                source.find(query, fields, sort=sort, limit=limit, batch_size=min(limit, 1000) or 1000)
            )

    def find_one(self, query: Filter, fields: Mapping[str, int] | None = None) -> Document | None:
        """One document that matches, or None."""
        with translated():
            return self._durable.find_one(query, fields)

    def insert(self, document: Document) -> None:
        """Add one document; raises AlreadyThere."""
        with translated():
            self._durable.insert_one(document)

    def insert_many(self, documents: Sequence[Document]) -> None:
        """Add many documents; raises AlreadyThere if any of them exists (the others may have been added)."""
        with translated():
            try:
                self._durable.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if _only_duplicates(error):
                    raise AlreadyThere from error
                raise

    def put_if_absent(self, documents: Sequence[Document]) -> set[Any]:
        """Store each document unless its `_id` is there already; either way it is with a majority afterwards.

        The no-op of an existing id is acknowledged like a write: the server waits until a majority has it. Answers the
        ids that this call stored.
        """
        pending = list(documents)
        stored = set[Any]()
        for last_try in (False, True):
            with translated():
                try:
                    outcome = self._durable.bulk_write([_upsert(one) for one in pending], ordered=False)
                    return stored | set((outcome.upserted_ids or {}).values())
                except BulkWriteError as error:
                    # Two upserts of one id at once: the loser is told "duplicate key" and tries again.
                    if last_try or not _only_duplicates(error):
                        raise
                    stored |= {one["_id"] for one in error.details.get("upserted", ())}
                    failed = {problem["index"] for problem in error.details["writeErrors"]}
                    pending = [one for index, one in enumerate(pending) if index in failed]
        return stored

    def update_one(self, query: Filter, change: Any, *, quick: bool = False, upsert: bool = False) -> bool:
        """Change one document; False when none matched."""
        with translated():
            outcome = self._for_writing(quick).update_one(query, change, upsert=upsert)
        return outcome.matched_count > 0 or outcome.upserted_id is not None

    def confirm(self, query: Filter) -> bool:
        """Whether a document is as this says, and a majority has it so afterwards; nothing is changed.

        For what was asked for before and is done already: what the primary alone has, a failover could still take away.
        """
        # A write that changes nothing is acknowledged like any other: once a majority has all that came before it.
        return self.update_one(query, {"$setOnInsert": {"confirmed": True}})

    def update_many(self, query: Filter, change: Any, *, quick: bool = False) -> int:
        """Change all that match; the number changed."""
        with translated():
            return self._for_writing(quick).update_many(query, change).modified_count

    def guarded(self, updates: Sequence[tuple[Filter, Any]], *, quick: bool = False) -> int:
        """Many single-document updates in one round trip; the number that still matched their guard."""
        if not updates:
            return 0
        requests = [UpdateOne(guard, change) for guard, change in updates]
        with translated():
            return self._for_writing(quick).bulk_write(requests, ordered=False).matched_count

    def delete_many(self, query: Filter) -> int:
        """Remove all that match; the number removed."""
        with translated():
            return self._durable.delete_many(query).deleted_count

    def count(self, query: Filter, *, limit: int = 0, majority: bool = False) -> int:
        """How many documents match, counting up to `limit` (0: all)."""
        bound: dict[str, Any] = {"limit": limit} if limit else {}
        source = self._majority if majority else self._durable
        with translated():
            return source.count_documents(query, **bound)

    def distinct(self, field: str, query: Filter) -> list[Any]:
        """The distinct values of a field among the matching documents."""
        with translated():
            return self._durable.distinct(field, query)

    def aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        """The rows of an aggregation."""
        with translated():
            return list(self._durable.aggregate(pipeline))

    def index(self, keys: Sequence[tuple[str, int]], **options: Any) -> None:
        """Make sure that an index exists."""
        with translated():
            self._durable.create_index(keys, **options)


def _upsert(document: Document) -> UpdateOne:
    rest = {name: value for name, value in document.items() if name != "_id"}
    return UpdateOne({"_id": document["_id"]}, {"$setOnInsert": rest}, upsert=True)


def _only_duplicates(error: BulkWriteError) -> bool:
    problems = error.details.get("writeErrors", [])
    concerns = error.details.get("writeConcernErrors", [])
    return bool(problems) and not concerns and all(one["code"] == DUPLICATE_KEY for one in problems)
