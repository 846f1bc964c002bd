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
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import IO, cast

from source_server.config import Settings
from source_server.domain.blob import (
    BlobLimits,
    BlobNotFound,
    HashDiffers,
    OtherPart,
    OverQuota,
    Owned,
    Part,
    Received,
    Uploader,
    Uploading,
    charge,
    checked_sha256,
    require_quota,
    require_size,
)
from source_server.domain.refusal import BadInput, Conflict, Unavailable
from source_server.services.files.blob_writing import COUNTED, Made, Read, Writing, full
from source_server.services.files.places import Places
from source_server.stores.database import Stores
from source_server.stores.grid import PIECE

__all__ = ["COUNTED", "PIECE", "Blobs", "Read", "limits_of"]

MOST_AT_ONCE = 4  #: who read, and as many who write, at once in one process
EACH = 3  #: of them of one account
QUIET = timedelta(seconds=12)  #: silence after which another request may go on with it
STEP = 64  #: pieces after which it is looked anew whether there is room,
LONGEST_S = 60.0  #: or so many seconds


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
        self._readers = Places(MOST_AT_ONCE, each=EACH)
        self._writers = Places(MOST_AT_ONCE, each=EACH)

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
        self,
        account: str,
        stream: IO[bytes],
        sha256: str | None = None,
        *,
        counted: bool = True,
        expected: int = 0,
    ) -> tuple[str, int]:
        """Store what the server itself has made or fetched; (hash, bytes). `expected`: bytes, as far as they are known.

        Raises TooLarge or OverQuota, HashDiffers when it is not what it should be, and Unavailable while too many
        write. `counted=False`: whether the account may have so much was asked before, and it is little.
        """
        require_size(expected, self.limits)
        with self._writers.place(account) if counted else nullcontext():
            if counted:
                require_quota(self.usage(account), charge(expected), self.limits)
            file = self._blobs.files.begin(sha256 or "", self._stores.clock.now())
            reserved = _Reserved(self, self._stores, account, file, counted=counted)
            try:
                digest, size = self._stream_in(stream, file, reserved)
                if sha256 not in (None, digest):
                    raise HashDiffers("What was to be stored has another hash than it should have.")
                reserved.finish(size)
            except BaseException:
                reserved.undo()
                raise
            self._keep(digest, size, file, account)
            reserved.drop()
            return digest, size

    def _stream_in(self, stream: IO[bytes], file: object, reserved: _Reserved) -> tuple[str, int]:
        digest, size, number = hashlib.sha256(), 0, 0
        due = self._monotonic() + LONGEST_S
        while piece := full(stream.read, PIECE):
            size += len(piece)
            require_size(size, self.limits)
            digest.update(piece)
            self._blobs.files.put(file, number, piece)
            number += 1
            if number % STEP == 0 or self._monotonic() >= due:
                due = self._monotonic() + LONGEST_S
                self._blobs.files.end(file, -1, self._stores.clock.now())
                reserved.grow(size)
        return digest.hexdigest(), size

    def keep(self, account: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """The same of pieces that are made as they are asked for."""
        return self.put_stream(account, cast(IO[bytes], io.BufferedReader(Made(pieces), PIECE)))

    # --- uploads

    def receive(self, uploader: Uploader, sha256: str, part: Part, read: Read) -> Received:
        """Take a part in, and the whole blob once nothing is missing.

        Raises BadInput, TooLarge, OtherPart where the part does not continue the upload, and HashDiffers. A body that
        breaks off is no error: the answer says how far it came.
        """
        checked_sha256(sha256)
        require_size(part.total, self.limits)
        with self._writers.place(uploader.account):
            if uploader.by:
                self.require_room(uploader, part.bytes)
            upload = self._upload(uploader, sha256, part)
            hand = uuid.uuid4().hex
            self._take(upload, hand)
            writing = Writing(self._stores, upload, hand, self._monotonic)
            writing.every(STEP, lambda: self.require_room(uploader, PIECE) if uploader.by else None)
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
        if found is not None and (
            found.finishing or (found.received and part.whole) or found.total != part.total
        ):
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
        if not uploader.by:
            require_quota(self.usage(account), charge(part.total), self.limits)
        file = self._blobs.files.begin(sha256, now)
        new = Uploading(id=upload_id, uploader=uploader, sha256=sha256, total=part.total, file=file)
        if not self._blobs.begin(new, now):
            self._blobs.files.forget(file)
            raise Unavailable("This blob is being uploaded just now; send the same request again.")
        try:
            # Again, with this one counted: two that began at once must not both fit into what was left for one.
            self.require_room(uploader, 0)
        except BaseException:
            self._discard(new)
            raise
        return new

    def require_room(self, uploader: Uploader, more: int) -> None:
        """Raises OverQuota when the account may not have so many bytes more.

        For one who uploads into another's quota it is Unavailable: its answer is right, and waits until there is room;
        and none of those may fill the quota alone.
        """
        try:
            require_quota(self.usage(uploader.account), more, self.limits)
        except OverQuota:
            if not uploader.by:
                raise
            raise Unavailable("The task's owner has no room for files just now; try again later.") from None
        if uploader.by:
            held = self._blobs.under_way(uploader.by) + self._stores.deliveries.unanswered(uploader.by)
            if held + more > uploader.share:
                raise Unavailable(
                    f"This account has brought {held} bytes of files for the task that are in no answer yet, of "
                    f"{uploader.share} at a time; try again later."
                )

    def _take(self, upload: Uploading, hand: str) -> None:
        now = self._stores.clock.now()
        if not self._blobs.take(upload, hand, now, quiet_since=now - QUIET):
            raise Unavailable("This blob is being uploaded just now; send the same request again.")

    def _finish(self, writing: Writing) -> Received:
        upload = writing.upload
        if not writing.begin_finish():
            raise writing.lost()
        try:
            right = writing.hash() == upload.sha256
        except BaseException:
            writing.unfinish()
            raise
        if not right:
            writing.discard()
            raise HashDiffers(
                f"What was received has another hash than {upload.sha256}: nothing of it is kept."
            )
        self._keep(upload.sha256, upload.total, upload.file, upload.uploader.account)
        writing.drop()
        return Received(sha256=upload.sha256, received=upload.total, total=upload.total, whole=True)

    def _keep(self, sha256: str, size: int, file: object, account: str) -> None:
        now = self._stores.clock.now()
        self._blobs.files.end(file, size, now)
        if not self._blobs.adopt(sha256, size, file, account, now):
            self._blobs.files.empty(file)
        if not self._blobs.owned(account, [sha256]):
            raise Conflict("Too many accounts have this very blob here: pack it, so that yours is another.")

    def _discard(self, upload: Uploading) -> None:
        """Forget an upload that nobody goes on with; raises Unavailable while somebody does."""
        if not self._blobs.drop_free(upload, quiet_since=self._stores.clock.now() - QUIET):
            raise Unavailable("This blob is being uploaded just now; send the same request again.")
        if not upload.finishing:
            # The file itself stays for a while: the pieces of one who is still writing are swept with it.
            self._blobs.files.empty(upload.file)


class _Reserved:
    """What a stream has come to so far, as an upload of nobody's hand but ours: others see it in the usage."""

    def __init__(self, blobs: Blobs, stores: Stores, account: str, file: object, *, counted: bool) -> None:
        self._blobs, self._stores, self._counted = blobs, stores, counted
        self._hand, self._begun = uuid.uuid4().hex, False
        self._as = Uploader(id="stream", account=account)
        self._upload = Uploading(
            id=f"stream/{self._hand}",
            uploader=replace(self._as, by="stream"),
            sha256="",
            total=blobs.limits.largest,
            file=file,
        )

    def grow(self, size: int) -> None:
        """It has come to so much; raises OverQuota."""
        if not self._counted:
            return
        store, now, self._upload = self._stores.blobs, self._stores.clock.now(), self._at(size)
        if not self._begun:
            self._begun = store.begin(self._upload, now, hand=self._hand)
        elif not store.advance(self._upload, self._hand, now):
            raise Unavailable("The file came too slowly; send the same request again.")
        self._blobs.require_room(self._as, 0)

    def finish(self, size: int) -> None:
        """That was all; raises OverQuota."""
        if self._begun:
            self.grow(size)
            if self._stores.blobs.finish(self._upload, self._hand, self._stores.clock.now()) is None:
                raise Unavailable("The file came too slowly; send the same request again.")
        elif self._counted:
            self._blobs.require_room(self._as, charge(size))

    def undo(self) -> None:
        """It is not kept."""
        if not self._begun or self._stores.blobs.drop(self._upload, self._hand):
            self._stores.blobs.files.forget(self._upload.file)

    def drop(self) -> None:
        """It is kept, and counts as what it is."""
        if self._begun:
            self._stores.blobs.drop(self._upload, self._hand)

    def _at(self, size: int) -> Uploading:
        return replace(self._upload, received=size)


def _upload_id(uploader: Uploader, sha256: str) -> str:
    return f"{uploader.id}/{sha256}"
