"""Blobs arrive in parts, are stored once however many own them, and are read by whom they were meant for.

Parts are stored as they come, so that what was received of an upload is never lost; the hash is taken over all of it at
the end. A new owner uploads the whole content: knowing its hash proves nothing.
"""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import IO, Any, cast

from source_server.config import Settings
from source_server.domain.blob import (
    BlobLimits,
    BlobNotFound,
    HashDiffers,
    OtherPart,
    Owned,
    Part,
    Received,
    Uploader,
    Uploading,
    checked_sha256,
    require_quota,
    require_size,
)
from source_server.domain.refusal import BadInput, Conflict, Unavailable
from source_server.services.readers import Readers
from source_server.stores.database import Stores
from source_server.stores.grid import PIECE

MOST_AT_ONCE = 4  #: who read, and as many who write, at once in one process
EACH = 3  #: of them of one account
ALIVE_S = 3.0  #: how often an upload says that it goes on
QUIET = timedelta(seconds=12)  #: silence after which another request may go on with it
COUNTED = 4 * PIECE  #: bytes that are stored before it is written down that they are: they may be sent twice
SLICE = 64 * 1024  #: bytes that are asked of a connection in one go

Read = Callable[[int], bytes]  #: up to so many bytes of the body; none at its end, or where it broke off


def limits_of(settings: Settings | None) -> BlobLimits:
    """What the operator allows."""
    if settings is None:
        return BlobLimits()
    return BlobLimits.of(
        largest_mb=settings.blob_mb, quota_mb=settings.blob_quota_mb, grace_h=settings.blob_grace_h
    )


class Blobs:
    """What is stored under its hash."""

    def __init__(
        self,
        stores: Stores,
        limits: BlobLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stores, self._blobs, self._monotonic = stores, stores.blobs, monotonic
        self.limits = limits or BlobLimits()
        self._readers = Readers(MOST_AT_ONCE, each=EACH)
        self._writers = Readers(MOST_AT_ONCE, each=EACH)

    # --- what services and views ask

    def require(self, account: str, sha256: str) -> int:
        """The bytes of a blob that the account owns, kept for the grace period from now on; raises BadInput."""
        found = self.touch(account, [checked_sha256(sha256)])
        if sha256 not in found:
            raise BadInput(f"There is no blob {sha256} of yours here; upload it first (dockercomp put FILE).")
        return found[sha256]

    def touch(self, account: str, hashes: Collection[str]) -> dict[str, int]:
        """Keep these blobs for the grace period from now on; hash -> bytes of those that the account owns."""
        return self._blobs.touch(account, hashes, self._stores.clock.now()) if hashes else {}

    def owned(self, account: str, hashes: Collection[str]) -> dict[str, int]:
        """hash -> bytes of those of these blobs that the account owns; nothing is changed by asking."""
        return self._blobs.owned(account, hashes) if hashes else {}

    def of(self, account: str, *, after: str, limit: int) -> list[Owned]:
        """The account's blobs in the order of their hashes."""
        return self._blobs.of(account, after=after, limit=limit)

    def usage(self, account: str) -> int:
        """Bytes that count for the account's quota."""
        return self._blobs.usage(account)

    @contextmanager
    def reading(self, sha256: str, account: str | None, *, reader: str) -> Iterator[tuple[int, IO[bytes]]]:
        """(bytes, content) of a blob of this account (None: anybody's); raises BlobNotFound, and Unavailable while too
        many read, or this reader's account does."""
        with self._readers.place(reader):
            found = self._blobs.read(checked_sha256(sha256), account)
            if found is None:
                raise BlobNotFound(sha256)
            with found[1]:
                yield found

    def open(self, sha256: str) -> IO[bytes]:
        """The content of a blob that something of ours names; raises BlobNotFound."""
        found = self._blobs.read(sha256, None)
        if found is None:
            raise BlobNotFound(sha256)
        return found[1]

    def received(self, uploader: Uploader, sha256: str) -> int | None:
        """How much there is of an upload that is not whole; None where there is none."""
        found = self._blobs.uploading(_upload_id(uploader, checked_sha256(sha256)))
        return None if found is None else found.received

    def put_stream(
        self, account: str, stream: IO[bytes], sha256: str | None = None, *, counted: bool = True
    ) -> tuple[str, int]:
        """Store what the server itself has made or fetched; (hash, bytes).

        Raises TooLarge or OverQuota, and HashDiffers when it is not what it should be. `counted=False`: whether the
        account may have so much was asked before.
        """
        used = self.usage(account) if counted else 0
        now = self._stores.clock.now()
        file, digest, size, number = self._blobs.files.begin(sha256 or "", now), hashlib.sha256(), 0, 0
        try:
            while piece := _full(stream.read, PIECE):
                size += len(piece)
                require_size(size, self.limits)
                require_quota(used, size, self.limits)
                digest.update(piece)
                self._blobs.files.put(file, number, piece)
                number += 1
                if number % 64 == 0:
                    self._blobs.files.end(file, -1, self._stores.clock.now())
            if sha256 not in (None, digest.hexdigest()):
                raise HashDiffers("What was to be stored has another hash than it should have.")
        except BaseException:
            self._blobs.files.forget(file)
            raise
        self._keep(digest.hexdigest(), size, file, account)
        return digest.hexdigest(), size

    def keep(self, account: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """The same of pieces that are made as they are asked for."""
        return self.put_stream(account, cast(IO[bytes], io.BufferedReader(_Made(pieces), PIECE)))

    # --- uploads

    def receive(self, uploader: Uploader, sha256: str, part: Part, read: Read) -> Received:
        """Take a part in, and the whole blob once nothing is missing.

        Raises BadInput, TooLarge, OtherPart where the part does not continue the upload, and HashDiffers. A body that
        breaks off is no error: the answer says how far it came.
        """
        checked_sha256(sha256)
        require_size(part.total, self.limits)
        with self._writers.place(uploader.account):
            upload = self._upload(uploader, sha256, part)
            hand = uuid.uuid4().hex
            self._take(upload, hand)
            writing = _Writing(self._stores, upload, hand, self._monotonic)
            try:
                writing.receive(part.bytes, read)
                if not writing.complete:
                    return Received(sha256=sha256, received=writing.upload.received, total=part.total)
                return self._finish(writing)
            finally:
                writing.let_go()

    def _upload(self, uploader: Uploader, sha256: str, part: Part) -> Uploading:
        """The upload that this part continues."""
        upload_id = _upload_id(uploader, sha256)
        found = self._blobs.uploading(upload_id)
        if found is not None and found.total != part.total and part.start:
            raise Conflict(f"The upload so far said that the blob has {found.total} bytes, not {part.total}.")
        if (found is not None and found.received and part.whole) or (found and found.total != part.total):
            self._discard(found)  # all of it comes anew
            found = None
        if found is None:
            found = self._begin(upload_id, uploader, sha256, part)
        if found.received != part.start:
            raise OtherPart(found.received)
        return found

    def _begin(self, upload_id: str, uploader: Uploader, sha256: str, part: Part) -> Uploading:
        if part.start:
            raise OtherPart(0)
        account, now = uploader.account, self._stores.clock.now()
        require_quota(self.usage(account), part.total, self.limits)
        file = self._blobs.files.begin(sha256, now)
        new = Uploading(id=upload_id, uploader=uploader, sha256=sha256, total=part.total, file=file)
        if not self._blobs.begin(new, now):
            self._blobs.files.forget(file)
            raise Unavailable("This blob is being uploaded just now; send the same request again.")
        try:
            # Again, with this one counted: two that began at once must not both fit into what was left for one.
            require_quota(self.usage(account), 0, self.limits)
        except BaseException:
            self._discard(new)
            raise
        return new

    def _take(self, upload: Uploading, hand: str) -> None:
        now = self._stores.clock.now()
        if not self._blobs.take(upload, hand, now, quiet_since=now - QUIET):
            raise Unavailable("This blob is being uploaded just now; send the same request again.")

    def _finish(self, writing: _Writing) -> Received:
        upload = writing.upload
        if writing.hash() != upload.sha256:
            self._discard(upload)
            raise HashDiffers(
                f"What was received has another hash than {upload.sha256}: nothing of it is kept."
            )
        self._keep(upload.sha256, upload.total, upload.file, upload.uploader.account)
        self._blobs.drop(upload)
        return Received(sha256=upload.sha256, received=upload.total, total=upload.total, whole=True)

    def _keep(self, sha256: str, size: int, file: object, account: str) -> None:
        now = self._stores.clock.now()
        self._blobs.files.end(file, size, now)
        if not self._blobs.adopt(sha256, size, file, account, now):
            self._blobs.files.empty(file)
        if not self._blobs.owned(account, [sha256]):
            raise Conflict("Too many accounts have this very blob here.")

    def _discard(self, upload: Uploading) -> None:
        self._blobs.drop(upload)
        # The file itself stays for a while: the pieces of one who is still writing are swept with it.
        self._blobs.files.empty(upload.file)


class _Writing:
    """A request that goes on with an upload: whole pieces go into the file, the rest into the upload's record."""

    def __init__(self, stores: Stores, upload: Uploading, hand: str, monotonic: Callable[[], float]) -> None:
        self._stores, self._hand, self._monotonic = stores, hand, monotonic
        self.upload = upload
        self._stored = upload.received - len(upload.tail)  #: bytes in the file
        self._due = monotonic() + ALIVE_S
        self._digest = (
            None if upload.received else hashlib.sha256()
        )  #: of all of it, where this request has seen it

    def receive(self, expected: int, read: Read) -> None:
        """Take in so many bytes, or what comes of them."""
        rest = bytearray(self.upload.tail)
        try:
            while expected:
                piece = read(min(SLICE, expected))
                if not piece:
                    break
                expected -= len(piece)
                if self._digest is not None:
                    self._digest.update(piece)
                rest += piece
                while len(rest) >= PIECE:
                    self._store(bytes(rest[:PIECE]))
                    del rest[:PIECE]
                if self._stored - self.upload.received >= COUNTED:
                    self._advance(b"")
                self._say_alive()
        finally:
            # Also of a connection that broke off: nothing that was received has to be sent twice.
            self._end(bytes(rest))

    @property
    def complete(self) -> bool:
        """Whether nothing is missing any more but a look at the hash."""
        return self._stored == self.upload.total

    def _end(self, rest: bytes) -> None:
        if rest and self._stored + len(rest) == self.upload.total:
            self._store(rest)
        elif self._stored + len(rest) != self.upload.received:
            self._advance(rest)

    def hash(self) -> str:
        """The hash of all that was received."""
        if self._digest is None:
            self._digest = hashlib.sha256()
            for piece in self._stores.blobs.files.pieces(self.upload.file, self.upload.total):
                self._digest.update(piece)
                self._say_alive()
        return self._digest.hexdigest()

    def let_go(self) -> None:
        """Others may go on with what is not whole."""
        self._stores.blobs.let_go(self.upload, self._hand, self._stores.clock.now())

    def _store(self, piece: bytes) -> None:
        number = self._stored // PIECE
        if not self._stores.blobs.files.put(self.upload.file, number, piece):
            # Bytes that were stored and not counted (a crash came between) are not those that come now.
            self._stores.blobs.drop(self.upload)
            self._stores.blobs.files.empty(self.upload.file)
            raise OtherPart(0)
        self._stored += len(piece)

    def _advance(self, tail: bytes) -> None:
        if self.complete:
            return  # not before the hash is right: whoever dies until then is sent the last piece again
        further = replace(self.upload, received=self._stored + len(tail), tail=tail)
        if not self._stores.blobs.advance(further, self._hand, self._stores.clock.now()):
            raise self._lost()
        self.upload = further
        self._due = self._monotonic() + ALIVE_S

    def _say_alive(self) -> None:
        if self._monotonic() < self._due:
            return
        self._due = self._monotonic() + ALIVE_S
        if not self._stores.blobs.say_alive(self.upload, self._hand, self._stores.clock.now()):
            raise self._lost()

    def _lost(self) -> Conflict:
        found = self._stores.blobs.uploading(self.upload.id)
        return OtherPart(0 if found is None else found.received)


class _Made(io.RawIOBase):
    """Pieces as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _upload_id(uploader: Uploader, sha256: str) -> str:
    return f"{uploader.id}/{sha256}"


def _full(read: Read, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    held = bytearray()
    while len(held) < size and (piece := read(size - len(held))):
        held += piece
    return bytes(held)
