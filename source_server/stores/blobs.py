"""Blobs: one document for each content, with its owners; the bytes in GridFS; uploads that are not whole yet.

An owner's entry has when it was last `touched` (a new reference does so first) and the number of the last sweep by
which it was `marked`. A blob without owners is being removed: nobody owns or reads it any more, and whoever brings the
content anew puts a new file in the place of the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import IO, Any

from pymongo.database import Database

from source_server.domain.blob import MOST_OWNERS, Owned, Uploader, Uploading
from source_server.stores.gate import AlreadyThere, Document, Gate
from source_server.stores.grid import GridFiles

LAST_OWNER = f"owners.{MOST_OWNERS - 1}"


class Blobs:
    """`blobs`, `blob_uploads`, and the bucket `blob_files`."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "blobs")
        self._uploads = Gate(database, "blob_uploads")
        self.files = GridFiles(database, "blob_files")

    def ensure_indexes(self) -> None:
        """What an account has, whole and under way; to which blob a file belongs."""
        self._gate.index([("owners.account", 1), ("_id", 1)], name="owner")
        self._gate.index([("file", 1)], name="file")
        self._uploads.index([("account", 1)], name="account")
        self.files.ensure_indexes()

    # --- whole ones

    def owned(self, account: str, hashes: Collection[str]) -> dict[str, int]:
        """hash -> bytes of those of these blobs that the account owns."""
        found = self._gate.find({"_id": {"$in": list(hashes)}, "owners.account": account}, {"bytes": 1})
        return {one["_id"]: one["bytes"] for one in found}

    def of(self, account: str, *, after: str, limit: int) -> list[Owned]:
        """The account's blobs in the order of their hashes, from behind `after` on."""
        query = {"owners.account": account, "_id": {"$gt": after}}
        found = self._gate.find(query, {"bytes": 1, "owners": 1}, sort=[("_id", 1)], limit=limit)
        return [Owned(sha256=one["_id"], bytes=one["bytes"], since=_since(one, account)) for one in found]

    def touch(self, account: str, hashes: Collection[str], now: datetime) -> dict[str, int]:
        """Keep these for the grace period from now on; hash -> bytes of those that the account owned just then.

        A compare-and-set against the sweep: whoever is not among the answer is gone, or on its way.
        """
        named = {"_id": {"$in": list(hashes)}}
        self._gate.update_many({**named, **_owner(account)}, {"$max": {"owners.$.touched": now}})
        fresh = {"owners": {"$elemMatch": {"account": account, "touched": {"$gte": now}}}}
        return {one["_id"]: one["bytes"] for one in self._gate.find({**named, **fresh}, {"bytes": 1})}

    def read(self, sha256: str, account: str | None) -> tuple[int, IO[bytes]] | None:
        """(bytes, content) of a blob that this account owns (None: that anybody owns); None when there is none."""
        owned = {"owners.0": {"$exists": True}} if account is None else {"owners.account": account}
        found = self._gate.find_one({"_id": sha256, **owned}, {"file": 1, "bytes": 1})
        return None if found is None else (found["bytes"], self.files.read(found["file"], found["bytes"]))

    def adopt(self, sha256: str, size: int, file: Any, account: str, now: datetime) -> bool:
        """The whole content is in this file: it is the account's from now on. False when it was here already, and the
        file is of no more use; or when too many own it."""
        owner = {"account": account, "since": now, "touched": now, "marked": 0}
        while True:
            try:
                self._gate.insert({"_id": sha256, "bytes": size, "file": file, "owners": [owner]})
                return True
            except AlreadyThere:
                pass
            if self.touch(account, [sha256], now):
                found = self._gate.find_one({"_id": sha256}, {"file": 1})
                return found is not None and found["file"] == file
            alive = {"owners.0": {"$exists": True}, LAST_OWNER: {"$exists": False}}
            free = {"_id": sha256, "owners.account": {"$ne": account}}
            if self._gate.update_one({**free, **alive}, {"$push": {"owners": owner}}):
                return False
            anew = {"file": file, "bytes": size, "owners": [owner]}
            if self._gate.update_one({"_id": sha256, "owners": []}, {"$set": anew}):
                return True
            if self._gate.find_one({"_id": sha256, LAST_OWNER: {"$exists": True}}, {"_id": 1}):
                return False

    def usage(self, account: str) -> int:
        """Bytes of the account's blobs, with all that uploads under way will come to."""
        total = 0
        for gate, query, field in (
            (self._gate, {"owners.account": account}, "$bytes"),
            (self._uploads, {"account": account}, "$total"),
        ):
            rows = gate.aggregate([{"$match": query}, {"$group": {"_id": None, "n": {"$sum": field}}}])
            total += rows[0]["n"] if rows else 0
        return int(total)

    # --- uploads

    def begin(self, upload: Uploading, now: datetime) -> bool:
        """A new upload; False when there is one of this id."""
        document = {
            "_id": upload.id,
            "who": upload.uploader.id,
            "account": upload.uploader.account,
            "sha256": upload.sha256,
            "total": upload.total,
            "file": upload.file,
            "received": 0,
            "tail": b"",
            "hand": None,
            "touched": now,
        }
        try:
            self._uploads.insert(document)
        except AlreadyThere:
            return False
        return True

    def uploading(self, upload_id: str) -> Uploading | None:
        """The upload of this id, or None."""
        found = self._uploads.find_one({"_id": upload_id})
        return None if found is None else _upload(found)

    def take(self, upload: Uploading, hand: str, now: datetime, *, quiet_since: datetime) -> bool:
        """Be the one that goes on with the upload as it was read; False when it has moved, or another one does."""
        free = {"$or": [{"hand": None}, {"touched": {"$lt": quiet_since}}]}
        guard = {"_id": upload.id, "file": upload.file, "received": upload.received, **free}
        return self._uploads.update_one(guard, {"$set": {"hand": hand, "touched": now}})

    def advance(self, upload: Uploading, hand: str, now: datetime) -> bool:
        """So much has been received; False when another one goes on with it."""
        change = {"received": upload.received, "tail": upload.tail, "touched": now}
        return self._uploads.update_one({"_id": upload.id, "hand": hand}, {"$set": change})

    def say_alive(self, upload: Uploading, hand: str, now: datetime) -> bool:
        """It goes on; False when another one does that."""
        return self._uploads.update_one(
            {"_id": upload.id, "hand": hand}, {"$set": {"touched": now}}, quick=True
        )

    def let_go(self, upload: Uploading, hand: str, now: datetime) -> None:
        """Others may go on with it."""
        self._uploads.update_one({"_id": upload.id, "hand": hand}, {"$set": {"hand": None, "touched": now}})

    def drop(self, upload: Uploading) -> None:
        """Forget the upload, unless it has begun anew. Its file is the caller's to remove."""
        self._uploads.delete_many({"_id": upload.id, "file": upload.file})

    def drop_quiet(self, before: datetime) -> int:
        """Forget uploads that nobody went on with since then; how many. Their files are left to the sweep."""
        return self._uploads.delete_many({"touched": {"$lt": before}})

    # --- mark and sweep

    def mark(self, account: str, hashes: Collection[str], number: int) -> None:
        """The sweep of this number has seen that something of the account names these."""
        query = {"_id": {"$in": list(hashes)}, **_owner(account)}
        self._gate.update_many(query, {"$max": {"owners.$.marked": number}})

    def page(self, after: str, *, limit: int) -> list[str]:
        """Hashes in their order, from behind `after` on."""
        found = self._gate.find({"_id": {"$gt": after}}, {"_id": 1}, sort=[("_id", 1)], limit=limit)
        return [one["_id"] for one in found]

    def disown(self, hashes: Sequence[str], number: int, *, untouched_since: datetime) -> int:
        """Take away owners that the sweep did not mark and nobody touched since then; how many blobs lost one."""
        stale = {"marked": {"$lt": number}, "touched": {"$lt": untouched_since}}
        query = {"_id": {"$in": list(hashes)}, "owners": {"$elemMatch": stale}}
        return self._gate.update_many(query, {"$pull": {"owners": stale}})

    def bury(self, hashes: Sequence[str]) -> int:
        """Remove those of these blobs that nobody owns; how many."""
        found = self._gate.find({"_id": {"$in": list(hashes)}, "owners": []}, {"file": 1})
        buried = 0
        for one in found:
            self.files.forget(one["file"])
            buried += self._gate.delete_many({"_id": one["_id"], "owners": [], "file": one["file"]})
        return buried

    def forget_strays(self, files: Sequence[tuple[Any, str]]) -> int:
        """Remove those of these files (id, hash or nothing) that belong to no blob and no upload; how many."""
        ids = [file for file, _ in files]
        # In this order: a file comes from an upload into a blob, and is never in neither of them.
        known = {one["file"] for one in self._uploads.find({"file": {"$in": ids}}, {"file": 1})}
        known |= {one["file"] for one in self._gate.find({"file": {"$in": ids}}, {"file": 1})}
        strays = [file for file in ids if file not in known]
        for file in strays:
            self.files.forget(file)
        return len(strays)


def _owner(account: str) -> Document:
    return {"owners": {"$elemMatch": {"account": account}}}


def _since(document: Document, account: str) -> datetime:
    since: datetime = next(one["since"] for one in document["owners"] if one["account"] == account)
    return since


def _upload(document: Document) -> Uploading:
    return Uploading(
        id=document["_id"],
        uploader=Uploader(id=document["who"], account=document["account"]),
        sha256=document["sha256"],
        total=document["total"],
        file=document["file"],
        received=document["received"],
        tail=bytes(document["tail"]),
    )
