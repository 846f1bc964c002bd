"""A chunk's files to and from the server, with the chunk as the proof that we may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client_container.blob import Blob, Pass
from client_container.connection import ServerConnection
from client_container.download import Download, sha256_of
from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.membership import Membership
from client_container.protocol import Registration

log = logging.getLogger(__name__)

PART = 8 * 2**20  #: bytes that are sent at a time
TRIES = 5  #: in a row after which the server had no more than before


class FileLost(Exception):
    """A file of ours is not what it was, or is gone: there is nothing to upload; the message is one sentence."""


class Blobs:
    """May be used from any thread."""

    def __init__(self, connection: ServerConnection, membership: Membership) -> None:
        self._connection, self._membership = connection, membership

    def fetch(
        self, download: Download, blob: Blob, proof: Pass, going_on: Callable[[], object] = lambda: None
    ) -> Path:
        """Have a blob in the folder of `download`, and answer where; raises as a download does, but not LifeEnded."""
        return download(blob, lambda start: self._part(blob, proof, start), going_on=going_on)

    def upload(
        self,
        path: Path,
        blob: Blob,
        proof: Pass,
        going_on: Callable[[], object] = lambda: None,
        *,
        anew: bool = False,
    ) -> None:
        """Bring a file, going on where an earlier call broke off; `anew`: whatever the server says of it.

        `going_on` is called between any two parts. Raises ServerUnavailable, Refused when the server will not have
        it, FileLost.
        """
        received = self._received(blob, proof) if blob.bytes > PART and not anew else 0
        tries, refused = 0, False
        while received < blob.bytes or blob.bytes == 0:
            going_on()
            try:
                now = self._put(blob, proof, received, _read(path, received, blob))
            except Refused as refusal:
                if refusal.status != 400 or refused:
                    raise
                _require_whole(path, blob)
                refused, now = True, 0
            if now >= blob.bytes:
                break
            tries = 0 if now > received else tries + 1
            if tries >= TRIES:
                raise ServerUnavailable("The server takes no more of a file.")
            received = max(now, 0)
        log.info("file uploaded", extra={"sha256": blob.sha256, "bytes": blob.bytes})

    @contextmanager
    def _part(self, blob: Blob, proof: Pass, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        with (
            self._member() as member,
            self._connection.blob(member, blob.sha256, proof, start=start) as found,
        ):
            yield found

    def _received(self, blob: Blob, proof: Pass) -> int:
        with self._member() as member:
            return self._connection.blob_received(member, blob, proof)

    def _put(self, blob: Blob, proof: Pass, start: int, part: bytes) -> int:
        with self._member() as member:
            return self._connection.put_blob(member, blob, proof, start, part)

    @contextmanager
    def _member(self) -> Iterator[Registration]:
        """Our life. One that has ended proves nothing about the chunk: with the next one the call goes on."""
        member = self._membership.get()
        try:
            yield member
        except LifeEnded as error:
            self._membership.ended(member)
            raise ServerUnavailable(str(error)) from error


def _read(path: Path, start: int, blob: Blob) -> bytes:
    """The part of a file that begins there; raises FileLost."""
    wanted = min(PART, blob.bytes - start)
    try:
        with path.open("rb") as file:
            file.seek(start)
            part = file.read(wanted)
    except OSError as error:
        raise FileLost(f"A file of the answer cannot be read ({error.strerror}).") from error
    if len(part) != wanted:
        raise FileLost("A file of the answer is shorter than it was.")
    return part


def _require_whole(path: Path, blob: Blob) -> None:
    """Raises FileLost for a file that changed since it was hashed."""
    try:
        whole = sha256_of(path) == blob.sha256
    except OSError:
        whole = False
    if not whole:
        raise FileLost("A file of the answer was damaged on this host.")
