"""What a container has uploaded for one run of one chunk: a bound, and what its attempt may name."""

from __future__ import annotations

from datetime import datetime

from pymongo.database import Database

from source_server.stores.gate import Document, Gate


class Deliveries:
    """One document for each chunk, run and container that files were uploaded for, in `blob_deliveries`."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "blob_deliveries")

    def ensure_indexes(self) -> None:
        """By age: old ones are forgotten. By whom, for what that one's come to."""
        self._gate.index([("touched", 1)], name="age")
        self._gate.index([("by", 1)], name="by", sparse=True)

    def admit(
        self, place: str, sha256: str, size: int, now: datetime, *, by: str, most: int, files: int
    ) -> bool:
        """Let this file in, once; False when it would be more than `most` bytes or so many files in all."""
        new = {"_id": place, "by": by, "files": [], "bytes": 0, "brought": 0, "begun": now, "touched": now}
        self._gate.put_if_absent([new])
        known = {"_id": place, "files": {"$elemMatch": {"sha256": sha256, "bytes": size}}}
        if self._gate.update_one(known, {"$set": {"touched": now}}):
            return True
        room = {"bytes": {"$lte": most - size}, f"files.{files - 1}": {"$exists": False}}
        guard = {"_id": place, "files.sha256": {"$ne": sha256}, **room}
        one = {"sha256": sha256, "bytes": size, "whole": False}
        change = {"$push": {"files": one}, "$inc": {"bytes": size}, "$set": {"touched": now}}
        return self._gate.update_one(guard, change)

    def complete(self, place: str, sha256: str, size: int, now: datetime) -> None:
        """This file has come whole, with the right hash; it counts so many bytes, once."""
        guard = {"_id": place, "files": {"$elemMatch": {"sha256": sha256, "whole": False}}}
        change = {"$set": {"files.$.whole": True, "touched": now}, "$inc": {"brought": size}}
        self._gate.update_one(guard, change)

    def answered(self, place: str) -> None:
        """What was brought so far is in an answer, or of no more use: it does not count any more."""
        self._gate.update_one({"_id": place}, {"$set": {"brought": 0, "done": True}})

    def first(self, by: str, *, since: datetime) -> str | None:
        """Of what these bring, and asked about since then, the place that began first and is in no answer yet."""
        query = {"by": by, "done": {"$ne": True}, "touched": {"$gte": since}}
        found = self._gate.find(query, {"_id": 1}, sort=[("begun", 1), ("_id", 1)], limit=1)
        return found[0]["_id"] if found else None

    def unanswered(self, by: str) -> int:
        """Bytes of files that came whole, by these, and are in no answer yet."""
        group = {"$group": {"_id": None, "n": {"$sum": "$brought"}}}
        rows = self._gate.aggregate([{"$match": {"by": by}}, group])
        return int(rows[0]["n"]) if rows else 0

    def whole(self, place: str) -> dict[str, int]:
        """hash -> bytes of what came whole."""
        found = self._gate.find_one({"_id": place}) or {"files": ()}
        return {one["sha256"]: one["bytes"] for one in found["files"] if one["whole"]}

    def forget(self, before: datetime) -> int:
        """Forget those that nothing was uploaded for since then; how many."""
        return self._gate.delete_many({"touched": {"$lt": before}})
