"""Until when something may still be read from a connection: a thread of ours waits for whoever sends.

A connection's own timeout bounds one `recv`, and a server's reader calls it again until it has what it was asked for:
it does not bound a sender of one byte now and then.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress

log = logging.getLogger(__name__)

LOOK_S = 0.5  #: how often it is looked at whose time is over


class Deadlines:
    """Ends the reading from connections whose time is over; a thread of its own, while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}
        self._watching = False

    def set(self, connection: socket.socket, due: float) -> None:
        """From that moment (`time.monotonic()`) on nothing more is read from it."""
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


deadlines = Deadlines()  #: of this process
