"""Archives of jobs' images: a record each, and the bytes in GridFS. The record comes last and goes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from io import BufferedReader
from typing import IO, Any, Protocol

from gridfs import GridFSBucket, NoFile
from pymongo.database import Database

from source_server.domain.image import StoredImage
from source_server.stores.gate import DURABLE, AlreadyThere, Document, Gate, translated
from source_server.stores.grid import PIECE, Content


class Incoming(Protocol):
    """An archive that is being stored."""

    def write(self, data: bytes, /) -> Any:
        """Take these bytes."""


class Images:
    """One document an image in `images`; its file in `image_files.files` and `.chunks`."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "images")
        self._files = Gate(database, "image_files.files")
        self._chunks = Gate(database, "image_files.chunks")
        durable = database.with_options(write_concern=DURABLE)
        self._bucket = GridFSBucket(durable, bucket_name="image_files", chunk_size_bytes=PIECE)

    @contextmanager
    def receiving(self, image_id: str) -> Iterator[tuple[Incoming, Any]]:
        """Where to write an archive, and the file's name to `add`. An exception leaves nothing behind."""
        with translated():
            stream = self._bucket.open_upload_stream(image_id)
            try:
                yield stream, stream._id
                stream.close()
            except BaseException:
                stream.abort()
                raise

    def add(self, image: StoredImage, file: Any) -> bool:
        """The file is whole: let it be found. False (and the file is gone) when the image is there already."""
        document = {**asdict(image), "_id": image.id, "file": file}
        del document["id"]
        try:
            self._gate.insert(document)
        except AlreadyThere:
            self._delete_file(file)
            return False
        return True

    def find(self, image_id: str) -> StoredImage | None:
        """The image with this id, or None."""
        return self.read([image_id]).get(image_id)

    def read(self, ids: Sequence[str]) -> dict[str, StoredImage]:
        """Those of these images that are here, by id."""
        return {one["_id"]: _image(one) for one in self._gate.find({"_id": {"$in": list(ids)}})}

    def all(self) -> list[StoredImage]:
        """Every image, the newest first."""
        return [_image(document) for document in self._gate.find({}, sort=[("added", -1)])]

    def open(self, image_id: str) -> tuple[StoredImage, IO[bytes]] | None:
        """An image and its archive to read; None when it is not here."""
        found = self._gate.find_one({"_id": image_id})
        if found is None:
            return None
        image = _image(found)
        return image, BufferedReader(Content(self._chunks, found["file"], image.bytes), PIECE)

    def remove(self, image_id: str) -> bool:
        """Forget an image; who reads it just now is cut off. False when it is not here."""
        found = self._gate.find_one({"_id": image_id}, {"file": 1})
        if found is None or self._gate.delete_many({"_id": image_id, "file": found["file"]}) == 0:
            return False
        self._delete_file(found["file"])
        return True

    def remove_leftovers(self, before: datetime) -> int:
        """Remove files begun before that instant that belong to no image: a crash left them; how many."""
        known = [one["file"] for one in self._gate.find({}, {"file": 1})]
        left = self._files.find({"uploadDate": {"$lt": before}, "_id": {"$nin": known}}, {"_id": 1})
        for one in left:
            self._delete_file(one["_id"])
        return len(left)

    def _delete_file(self, file: Any) -> None:
        with translated(), suppress(NoFile):
            self._bucket.delete(file)


def _image(document: Document) -> StoredImage:
    known = {name: document[name] for name in StoredImage.__dataclass_fields__ if name != "id"}
    return StoredImage(id=document["_id"], **known)
