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

from source_server.domain.blob import LEAST, MOST_OWNERS, Owned, Uploader, Uploading
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
        self._uploads.index([("by", 1)], name="by", sparse=True)
        self._uploads.index([("progress", 1)], name="progress", sparse=True)
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
        """Bytes that the account's blobs count, with what uploads under way count."""
        return _sum(self._gate, {"owners.account": account}, {"$max": ["$bytes", LEAST]}) + _sum(
            self._uploads, {"account": account}, _CHARGED
        )

    def under_way(self, by: str) -> int:
        """Bytes that the uploads under way count which are by these."""
        return _sum(self._uploads, {"by": by}, _CHARGED)

    # --- uploads

    def begin(self, upload: Uploading, now: datetime, *, hand: str | None = None) -> bool:
        """A new upload, perhaps in a hand already; False when there is one of this id."""
        document: Document = {
            "_id": upload.id,
            "who": upload.uploader.id,
            "account": upload.uploader.account,
            "sha256": upload.sha256,
            "total": upload.total,
            "file": upload.file,
            "received": 0,
            "tail": b"",
            "charged": upload.charged,
            "hand": hand,
            "hands": 0 if hand is None else 1,  # that ever held it
            "finishing": False,
            "touched": now,
        }
        if upload.uploader.by:
            document |= {"by": upload.uploader.by, "chunk": upload.uploader.chunk, "progress": now}
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
        guard = {**_as_read(upload, finishing=False), "received": upload.received, **_free(quiet_since)}
        change = {"$set": {"hand": hand, "touched": now}, "$inc": {"hands": 1}}
        return self._uploads.update_one(guard, change)

    def advance(self, upload: Uploading, hand: str, now: datetime) -> bool:
        """So much has been received; False when another one goes on with it."""
        change = {"received": upload.received, "tail": upload.tail, "touched": now, "charged": upload.charged}
        if upload.uploader.by:
            change["progress"] = now
        return self._uploads.update_one({"_id": upload.id, "hand": hand}, {"$set": change})

    def say_alive(self, upload: Uploading, hand: str, now: datetime) -> bool:
        """It goes on; False when another one does that."""
        return self._uploads.update_one(
            {"_id": upload.id, "hand": hand}, {"$set": {"touched": now}}, quick=True
        )

    def let_go(self, upload: Uploading, hand: str, now: datetime) -> None:
        """Others may go on with it."""
        self._uploads.update_one({"_id": upload.id, "hand": hand}, {"$set": {"hand": None, "touched": now}})

    def finish(self, upload: Uploading, hand: str, now: datetime) -> int | None:
        """Everything is stored: from now on nobody takes it or touches its pieces. How many hands ever held it; None
        when another one does."""
        guard = {"_id": upload.id, "file": upload.file, "hand": hand}
        if not self._uploads.update_one(guard, {"$set": {"finishing": True, "touched": now}}):
            return None
        found = self._uploads.find_one({**guard, "finishing": True}, {"hands": 1})
        return None if found is None else int(found.get("hands", 2))

    def unfinish(self, upload: Uploading, hand: str) -> None:
        """Others may go on with it after all: whoever was finishing it stored nothing, and will not."""
        self._uploads.update_one({"_id": upload.id, "hand": hand}, {"$set": {"finishing": False}})

    def drop(self, upload: Uploading, hand: str) -> bool:
        """Forget the upload that this hand holds. Only who is told True may remove the file."""
        guard = {"_id": upload.id, "file": upload.file, "hand": hand}
        return self._uploads.delete_many(guard) > 0

    def drop_free(self, upload: Uploading, *, quiet_since: datetime) -> bool:
        """Forget an upload that nobody goes on with. Only who is told True may remove the file, and not if it was
        finishing: who did that may be slow, and not dead."""
        return self._uploads.delete_many({**_as_read(upload), **_free(quiet_since)}) > 0

    def resting(self, before: datetime, *, limit: int) -> list[tuple[Uploading, datetime]]:
        """Uploads by others than the owner that have not grown since then, and since when; longest first."""
        query = {"progress": {"$lt": before}}
        found = self._uploads.find(query, sort=[("progress", 1)], limit=limit)
        return [(_upload(one), one["progress"]) for one in found]

    def drop_resting(self, upload: Uploading, since: datetime) -> bool:
        """Forget an upload that has not grown since. As with `drop_free`."""
        return self._uploads.delete_many({**_as_read(upload), "progress": since}) > 0

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


_CHARGED: Document = {"$ifNull": ["$charged", "$total"]}


def _sum(gate: Gate, query: Document, what: Document) -> int:
    rows = gate.aggregate([{"$match": query}, {"$group": {"_id": None, "n": {"$sum": what}}}])
    return int(rows[0]["n"]) if rows else 0


def _free(quiet_since: datetime) -> Document:
    return {"$or": [{"hand": None}, {"touched": {"$lt": quiet_since}}]}


def _as_read(upload: Uploading, *, finishing: bool | None = None) -> Document:
    wanted = upload.finishing if finishing is None else finishing
    return {"_id": upload.id, "file": upload.file, "finishing": True if wanted else {"$ne": True}}


def _owner(account: str) -> Document:
    return {"owners": {"$elemMatch": {"account": account}}}


def _since(document: Document, account: str) -> datetime:
    since: datetime = next(one["since"] for one in document["owners"] if one["account"] == account)
    return since


def _upload(document: Document) -> Uploading:
    return Uploading(
        id=document["_id"],
        uploader=Uploader(
            id=document["who"],
            account=document["account"],
            by=document.get("by", ""),
            chunk=document.get("chunk", ""),
        ),
        sha256=document["sha256"],
        total=document["total"],
        file=document["file"],
        received=document["received"],
        tail=bytes(document["tail"]),
        finishing=bool(document.get("finishing")),
    )
