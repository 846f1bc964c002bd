"""Uploads into another's quota that have stopped, or are of no more use, are forgotten within minutes."""

from __future__ import annotations

from datetime import datetime, timedelta

from source_server.domain.blob import Uploading
from source_server.domain.chunk import OPEN_STATES, Chunk
from source_server.stores.database import Stores

RESTED = timedelta(minutes=10)  #: without a byte; a connection that is that slow is cut off long before
SETTLED = timedelta(minutes=1)  #: the same, where the chunk wants no answer any more
PAGE = 200  #: uploads that are looked at in one go
PAUSE = timedelta(seconds=10)


class DropUploads:
    """One small step at a call."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._next: datetime | None = None

    def __call__(self, now: datetime) -> int:
        """How many were forgotten."""
        if self._next is not None and self._next - PAUSE <= now < self._next:
            return 0
        self._next = now + PAUSE
        resting = self._stores.blobs.resting(now - SETTLED, limit=PAGE)
        chunks = self._stores.chunks.read(sorted({one.uploader.chunk for one, _ in resting} - {""}))
        return sum(
            self._drop(upload, since)
            for upload, since in resting
            if since < now - RESTED or _of_no_use(upload, chunks)
        )

    def _drop(self, upload: Uploading, since: datetime) -> bool:
        dropped = self._stores.blobs.drop_resting(upload, since)
        if dropped and not upload.finishing:
            self._stores.blobs.files.empty(upload.file)
        return dropped


def _of_no_use(upload: Uploading, chunks: dict[str, Chunk]) -> bool:
    """Whether its chunk is gone, or settled while no container computes it any more."""
    if not upload.uploader.chunk:
        return False
    chunk = chunks.get(upload.uploader.chunk)
    return chunk is None or (chunk.state not in OPEN_STATES and not chunk.leases)
