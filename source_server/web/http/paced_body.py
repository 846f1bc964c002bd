"""Bodies of requests. Who sends too slowly is cut off, for a thread of ours waits for each sender."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from flask import request
from werkzeug.exceptions import ClientDisconnected

from source_server.deadlines import deadlines
from source_server.domain.refusal import Refusal, Unavailable
from source_server.services.files.blobs import Read

#: Bytes that have to come within the patience: whoever sends less than 17 kB/s is cut off.
STRETCH = 512 * 1024
PATIENCE_S = 30.0
SLICE = 64 * 1024
MOST_DISCARDED = 64 * 1024 * 1024  #: bytes that are read of a body for nothing, so that its refusal is heard
DISCARD_S = 10.0


@contextmanager
def body_in_time() -> Iterator[Read]:
    """How to read the body of the current request. It ends early where the sender breaks off or is too slow."""
    body = _Body()
    try:
        yield body.read
        body.discard()
    except Refusal as refusal:
        if not isinstance(refusal, Unavailable):
            body.discard()
        raise


class Paced(io.RawIOBase):
    """The body of a request, each stretch of which must come in time; whatever reads it.

    Only the time in which we wait for it counts.
    """

    def __init__(self, source: IO[bytes], connection: socket.socket) -> None:
        self._source, self._connection = source, connection
        self._left, self._left_s = STRETCH, PATIENCE_S  #: of this stretch: bytes still to come, and seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill it, unless the body ends before."""
        view, got = memoryview(into), 0
        while got < len(view) and (piece := self._piece(min(len(view) - got, self._left))):
            view[got : got + len(piece)] = piece
            got += len(piece)
        return got

    def _piece(self, size: int) -> bytes:
        begun = time.monotonic()
        deadlines.set(self._connection, begun + self._left_s)
        try:
            piece = self._source.read(size)
        finally:
            deadlines.drop(self._connection)
        self._left -= len(piece)
        self._left_s -= time.monotonic() - begun
        if self._left <= 0:
            self._left, self._left_s = STRETCH, PATIENCE_S
        return piece


class _Body:
    """The body of the current request, as far as it comes."""

    def read(self, size: int) -> bytes:
        """Up to so many bytes."""
        try:
            return bytes(request.stream.read(size))
        except (ClientDisconnected, OSError):
            return b""  # what there was before has been read

    def discard(self) -> None:
        """Read what is left, within bounds: most clients look at the answer only when they have sent everything."""
        if not _discarding.acquire(blocking=False):
            return
        try:
            until, most = time.monotonic() + DISCARD_S, MOST_DISCARDED
            while most > 0 and time.monotonic() < until and (piece := self.read(SLICE)):
                most -= len(piece)
        finally:
            _discarding.release()


_discarding = threading.Semaphore(2)  #: so many at once; the other threads are for those who are not refused
