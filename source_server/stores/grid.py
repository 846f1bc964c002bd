"""Files in GridFS, one piece in memory. What is stored of a file stays, whoever brings the rest of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any

from bson import ObjectId
from pymongo.database import Database

from source_server.stores.gate import AlreadyThere, DatabaseUnavailable, Document, Gate

PIECE = 1024 * 1024  #: bytes that are read and written in one go
REMOVED = 200  #: pieces that are removed in one go


class GridFiles:
    """A bucket whose files are written piece by piece; a piece is written once and never changed."""

    def __init__(self, database: Database[Document], bucket: str) -> None:
        self._files = Gate(database, f"{bucket}.files")
        self._pieces = Gate(database, f"{bucket}.chunks")

    def ensure_indexes(self) -> None:
        """By place in the file; files by when they were last written to."""
        self._pieces.index([("files_id", 1), ("n", 1)], unique=True)
        self._files.index([("uploadDate", 1), ("_id", 1)], name="age")

    def begin(self, name: str, now: datetime) -> ObjectId:
        """A new file without anything in it; its id."""
        file = ObjectId()
        self._files.insert({"_id": file, "filename": name, "chunkSize": PIECE, "uploadDate": now})
        return file

    def put(self, file: Any, number: int, data: bytes) -> bool:
        """Store the piece of this number; False when another one is there already."""
        try:
            self._pieces.insert({"files_id": file, "n": number, "data": data})
        except AlreadyThere:
            found = self._pieces.find_one({"files_id": file, "n": number}, {"data": 1})
            return found is not None and bytes(found["data"]) == data
        return True

    def end(self, file: Any, size: int, now: datetime) -> None:
        """The file is whole, as tools that look into GridFS see it; or it is still being written (`size` -1)."""
        whole = {} if size < 0 else {"length": size}
        self._files.update_one({"_id": file}, {"$set": {"uploadDate": now, **whole}})

    def read(self, file: Any, size: int) -> IO[bytes]:
        """The file's content; it may be entered anywhere."""
        return io.BufferedReader(Content(self._pieces, file, size), PIECE)

    def pieces(self, file: Any, size: int) -> Iterator[bytes]:
        """The file's content, piece by piece; raises DatabaseUnavailable when one is not there (any more)."""
        with self.read(file, size) as content:
            while piece := content.read(PIECE):
                yield piece

    def empty(self, file: Any) -> None:
        """Remove the pieces. The file itself stays until `forget`: somebody may be writing yet another piece."""
        while found := self._pieces.find({"files_id": file}, {"n": 1}, limit=REMOVED):
            self._pieces.delete_many({"_id": {"$in": [one["_id"] for one in found]}})

    def forget(self, file: Any) -> None:
        """Remove the file altogether."""
        self.empty(file)
        self._files.delete_many({"_id": file})

    def untouched(self, before: datetime, *, after: Any, limit: int) -> list[tuple[Any, str]]:
        """(id, name) of files last written to before that instant, in the order of their ids, from behind `after`."""
        query: Document = {"uploadDate": {"$lt": before}}
        if after is not None:
            query["_id"] = {"$gt": after}
        found = self._files.find(query, {"filename": 1}, sort=[("_id", 1)], limit=limit)
        return [(one["_id"], one["filename"]) for one in found]


class Content(io.RawIOBase):
    """A file of GridFS, one piece in memory. The driver's own reader has 16 MB of them there, for each who reads."""

    def __init__(self, pieces: Gate, file: Any, size: int) -> None:
        self._pieces, self._file, self._size = pieces, file, size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is: a range begins anywhere."""
        return True

    def seek(self, pos: int, whence: int = io.SEEK_SET, /) -> int:
        """Go there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + pos)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Up to the end of one piece; raises DatabaseUnavailable when it is there no more."""
        if self._at >= self._size:
            return 0
        number, skipped = divmod(self._at, PIECE)
        found = self._pieces.find_one({"files_id": self._file, "n": number}, {"data": 1})
        if found is None:
            raise DatabaseUnavailable("The file was removed while it was read.")
        piece = bytes(found["data"])[skipped : skipped + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
