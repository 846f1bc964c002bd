"""How the bytes of a blob get from a request into the store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from source_server.domain.blob import OtherPart, Uploading
from source_server.domain.refusal import Conflict
from source_server.stores.database import Stores
from source_server.stores.grid import PIECE

ALIVE_S = 3.0  #: how often an upload says that it goes on
COUNTED = 4 * PIECE  #: bytes that are stored before it is written down that they are: they may be sent twice
SLICE = 64 * 1024  #: bytes that are asked of a connection in one go

Read = Callable[[int], bytes]  #: up to so many bytes of the body; none at its end, or where it broke off


class Writing:
    """A request that goes on with an upload: whole pieces go into the file, the rest into the upload's record."""

    def __init__(self, stores: Stores, upload: Uploading, hand: str, monotonic: Callable[[], float]) -> None:
        self._stores, self._hand, self._monotonic = stores, hand, monotonic
        self.upload = upload
        self._stored = upload.received - len(upload.tail)  #: bytes in the file
        self._due = monotonic() + ALIVE_S
        self._step, self._new, self._look = 0, 0, _nothing
        #: Of all of it, where this request has seen it.
        self._digest = None if upload.received else hashlib.sha256()

    def every(self, step: int, look: Callable[[], object]) -> None:
        """Call this whenever so many pieces were stored; what it raises ends the request."""
        self._step, self._look = step, look

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
                    if self._step and self._new % self._step == 0:
                        self._look()
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

    def begin_finish(self) -> bool:
        """From now on nobody else touches what is stored; False when another one goes on with it."""
        hands = self._stores.blobs.finish(self.upload, self._hand, self._stores.clock.now())
        if hands != 1:
            # Others held it too: what is stored need not be what came to us.
            self._digest = None
        return hands is not None

    def unfinish(self) -> None:
        """We could not look at the hash; others may go on."""
        self._stores.blobs.unfinish(self.upload, self._hand)

    def drop(self) -> bool:
        """Forget the upload; False when it is not ours any more."""
        return self._stores.blobs.drop(self.upload, self._hand)

    def discard(self) -> None:
        """Forget the upload with all that was stored of it, unless it is not ours any more."""
        if self.drop():
            self._stores.blobs.files.empty(self.upload.file)

    def hash(self) -> str:
        """The hash of all that was stored. Pieces are read one by one unless all of them have just come to us."""
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
        # Whoever lost the upload to another one stores nothing more in its file.
        self._say_alive(now=True)
        number = self._stored // PIECE
        if not self._stores.blobs.files.put(self.upload.file, number, piece):
            # Bytes that were stored and not counted (a crash came between) are not those that come now.
            self.discard()
            raise OtherPart(0)
        self._stored += len(piece)
        self._new += 1

    def _advance(self, tail: bytes) -> None:
        if self.complete:
            return  # not before the hash is right: whoever dies until then is sent the last piece again
        further = replace(self.upload, received=self._stored + len(tail), tail=tail)
        if not self._stores.blobs.advance(further, self._hand, self._stores.clock.now()):
            raise self.lost()
        self.upload = further
        self._due = self._monotonic() + ALIVE_S

    def _say_alive(self, *, now: bool = False) -> None:
        if not now and self._monotonic() < self._due:
            return
        self._due = self._monotonic() + ALIVE_S
        if not self._stores.blobs.say_alive(self.upload, self._hand, self._stores.clock.now()):
            raise self.lost()

    def lost(self) -> Conflict:
        """Another one goes on with it, as an error that says from where on."""
        found = self._stores.blobs.uploading(self.upload.id)
        return OtherPart(0 if found is None else found.received)


class Made(io.RawIOBase):
    """Pieces as a stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Up to the end of one piece; 0 when there is none left."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def full(read: Read, size: int) -> bytes:
    """So many bytes, or fewer at the end."""
    held = bytearray()
    while len(held) < size and (piece := read(size - len(held))):
        held += piece
    return bytes(held)


def _nothing() -> object:
    return None
