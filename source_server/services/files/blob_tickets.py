"""What a container may read and upload: it shows the ticket of a chunk that it was given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from source_server.domain import tickets
from source_server.domain.blob import (
    MOST_FILES,
    BlobLimits,
    BlobNotFound,
    Part,
    Received,
    Uploader,
    charge,
    output_bytes,
    share_of,
)
from source_server.domain.chunk import Chunk
from source_server.domain.container import Container
from source_server.domain.inputs import literals
from source_server.domain.refusal import BadInput, NotAllowed, NotFound, TooLarge
from source_server.domain.task import Task
from source_server.services.files.blobs import Blobs, Read
from source_server.stores.database import Stores

WAITING = timedelta(hours=1)  #: after which one that asks no more holds up nobody


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A ticket that fits, with what it is for."""

    container: Container
    chunk: Chunk
    run: int
    task: Task

    @property
    def place(self) -> str:
        """Under which name it is kept what the container uploads for this run of the chunk."""
        return place(self.chunk.id, self.run, self.container.id)

    @property
    def by(self) -> str:
        """Under which name what this volunteer brings for the task is bounded, whichever of its hosts does."""
        return f"{self.container.account}/{self.task.id}"

    def uploader(self, limits: BlobLimits) -> Uploader:
        """The container, for the task's owner."""
        return Uploader(
            id=f"{self.container.id}/{self.task.owner}",
            account=self.task.owner,
            by=self.by,
            share=share_of(self.task.job.disk_mb, limits),
            chunk=self.chunk.id,
        )


def place(chunk: str, run: int, container: str) -> str:
    """The name of what a container uploads for one run of a chunk."""
    return f"{chunk}/{run}/{container}"


class BlobTickets:
    """Blobs for holders of tickets."""

    def __init__(self, stores: Stores, blobs: Blobs, *, secret: bytes) -> None:
        self._stores, self._blobs, self._secret = stores, blobs, secret

    def shown(self, container: Container, words: str) -> Shown:
        """What `CHUNK RUN TOKEN TICKET` is for; raises BadInput, NotAllowed for one that does not fit, NotFound."""
        parts = words.split(" ")
        if len(parts) != 4 or not (parts[1].isascii() and parts[1].isdigit() and len(parts[1]) < 16):
            raise BadInput("The header Dockercomp-Ticket says CHUNK RUN TOKEN TICKET.")
        chunk_id, run, token, proof = parts[0], int(parts[1]), parts[2], parts[3]
        if not tickets.fits(
            proof, self._secret, chunk=chunk_id, run=run, container=container.id, token=token
        ):
            raise NotAllowed("The ticket does not fit this chunk, run, token and container.")
        chunk = self._stores.chunks.read([chunk_id]).get(chunk_id)
        task = None if chunk is None else self._stores.tasks.find(chunk.task)
        if chunk is None or task is None:
            raise NotFound("There is no such chunk any more.")
        return Shown(container=container, chunk=chunk, run=run, task=task)

    def owner_of(self, shown: Shown, sha256: str) -> str:
        """The account whose blob it is; raises BlobNotFound unless the chunk or its job names it."""
        named = {one.sha256 for one in shown.chunk.files} | {
            one for one, _ in literals(shown.task.job.inputs)
        }
        if shown.chunk.input_file is not None:
            named.add(shown.chunk.input_file.sha256)
        if sha256 not in named and sha256 not in self.delivered(shown):
            raise BlobNotFound(sha256, self._blobs.received(shown.uploader(self._blobs.limits), sha256))
        return shown.task.owner

    def delivered(self, shown: Shown) -> dict[str, int]:
        """hash -> bytes of what the container has uploaded whole for this run of the chunk."""
        return self._stores.deliveries.whole(shown.place)

    def _uploader(self, shown: Shown, now: datetime) -> Uploader:
        """Who uploads. The share does not hold up what began first: else many that began would wait for each other."""
        found = shown.uploader(self._blobs.limits)
        if self._stores.deliveries.first(shown.by, since=now - WAITING) == shown.place:
            return replace(found, share=self._blobs.limits.quota)
        return found

    def receive(self, shown: Shown, sha256: str, part: Part, read: Read) -> Received:
        """Take in a part of a file that the chunk's program has made. Raises as `Blobs.receive` does; TooLarge."""
        job, now = shown.task.job, self._stores.clock.now()
        if not job.outputs:
            raise NotAllowed("The job keeps no files: it names no `outputs`.")
        most = output_bytes(job.disk_mb)
        if not self._stores.deliveries.admit(
            shown.place, sha256, part.total, now, by=shown.by, most=most, files=2 * MOST_FILES
        ):
            raise TooLarge(
                f"For one chunk a container uploads at most {most} bytes in {2 * MOST_FILES} files."
            )
        received = self._blobs.receive(self._uploader(shown, now), sha256, part, read)
        if received.whole:
            size, now = charge(received.total), self._stores.clock.now()
            self._stores.deliveries.complete(shown.place, sha256, size, now)
        return received
