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
        """By age: old ones are forgotten."""
        self._gate.index([("touched", 1)], name="age")

    def admit(self, place: str, sha256: str, size: int, now: datetime, *, most: int, files: int) -> bool:
        """Let this file in, once; False when it would be more than `most` bytes or so many files in all."""
        self._gate.put_if_absent([{"_id": place, "files": [], "bytes": 0, "touched": now}])
        known = {"_id": place, "files": {"$elemMatch": {"sha256": sha256, "bytes": size}}}
        if self._gate.update_one(known, {"$set": {"touched": now}}):
            return True
        room = {"bytes": {"$lte": most - size}, f"files.{files - 1}": {"$exists": False}}
        guard = {"_id": place, "files.sha256": {"$ne": sha256}, **room}
        one = {"sha256": sha256, "bytes": size, "whole": False}
        change = {"$push": {"files": one}, "$inc": {"bytes": size}, "$set": {"touched": now}}
        return self._gate.update_one(guard, change)

    def complete(self, place: str, sha256: str, now: datetime) -> None:
        """This file has come whole, with the right hash."""
        guard = {"_id": place, "files.sha256": sha256}
        self._gate.update_one(guard, {"$set": {"files.$.whole": True, "touched": now}})

    def whole(self, place: str) -> dict[str, int]:
        """hash -> bytes of what came whole."""
        found = self._gate.find_one({"_id": place}) or {"files": ()}
        return {one["sha256"]: one["bytes"] for one in found["files"] if one["whole"]}

    def forget(self, before: datetime) -> int:
        """Forget those that nothing was uploaded for since then; how many."""
        return self._gate.delete_many({"touched": {"$lt": before}})
