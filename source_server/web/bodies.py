"""Large bodies of requests. Who sends too slowly is cut off, for a thread of ours waits for each sender."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flask import request
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.refusal import Refusal, Unavailable
from source_server.services.blobs import Read

log = logging.getLogger(__name__)

STRETCH = (
    512 * 1024
)  #: bytes that have to come within the patience: whoever sends less than 17 kB/s is cut off
PATIENCE_S = 30.0
SLICE = 64 * 1024
MOST_DISCARDED = 64 * 1024 * 1024  #: bytes that are read of a body for nothing, so that its refusal is heard
DISCARD_S = 10.0
LOOK_S = 0.5  #: how often it is looked at whose time is over


@contextmanager
def body_in_time() -> Iterator[Read]:
    """How to read the body of the current request. It ends early where the sender breaks off or is too slow."""
    body = _Body(request.environ.get("gunicorn.socket"))
    try:
        yield body.read
        body.discard()
    except Refusal as refusal:
        if not isinstance(refusal, Unavailable):
            body.discard()
        raise
    finally:
        body.end()


class _Body:
    """The body, each stretch of which must come in time.

    A connection's own timeout bounds one `recv`, and a server's reader calls it again until it has what it was asked
    for: neither bounds a sender of one byte now and then.
    """

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._left = 0  #: bytes of the stretch that are still to come

    def read(self, size: int) -> bytes:
        """Up to so many bytes."""
        if self._left <= 0 and self._connection is not None:
            _deadlines.set(self._connection, time.monotonic() + PATIENCE_S)
            self._left = STRETCH
        try:
            piece = request.stream.read(size)
        except (ClientDisconnected, OSError):
            return b""  # what there was before has been read
        self._left -= len(piece)
        return bytes(piece)

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

    def end(self) -> None:
        """Nobody waits for this sender any more."""
        if self._connection is not None:
            _deadlines.drop(self._connection)


class _Deadlines:
    """Ends the reading from connections whose time is over; a thread of its own, while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}
        self._watching = False

    def set(self, connection: socket.socket, due: float) -> None:
        """From that moment on nothing more is read from it."""
        with self._lock:
            self._due[connection] = due
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()

    def drop(self, connection: socket.socket) -> None:
        """It has no deadline any more."""
        with self._lock:
            self._due.pop(connection, None)

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                if not self._due:
                    self._watching = False
                    return
                for connection in [one for one, due in self._due.items() if due < time.monotonic()]:
                    del self._due[connection]
                    log.info("slow sender cut off")
                    # Under the lock, so that it is no other request's connection by now.
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RD)


_deadlines = _Deadlines()
_discarding = threading.Semaphore(2)  #: so many at once; the other threads are for those who are not refused
