"""The client's end of the wire launcher-v1: ask the launcher something, and hear its events."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from client_container.launcher.line.events import Event, refusal_of
from client_container.launcher.line.wire import (
    EVENT_BYTES,
    ConnectionEnded,
    Request,
    encode_frame,
    read_frame,
    request_message,
)

CONNECT_S = 10.0
FRAME_S = 30.0  #: an event that began has to arrive within it


class LauncherAway(Exception):
    """The launcher does not answer, or stopped in the middle; asking again later may help."""


class Interrupted(Exception):
    """Whoever asked was called away; the question stands."""


class LauncherLine:
    """Asks over the socket of this container's slot; a connection for each question, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(
        self, request: Request, *, interrupt: int | None = None, patience_s: float | None = None
    ) -> Iterator[Event]:
        """The events up to and including the end.

        Raises LauncherAway, also after `patience_s` without an event; Refusal for an end that refuses; Interrupted
        as soon as the descriptor `interrupt` is readable.
        """
        with self._connected() as connection:
            try:
                connection.sendall(encode_frame(request_message(request)))
                while True:
                    event = self._next(connection, interrupt, patience_s)
                    if event.get("event") == "end":
                        if (refusal := refusal_of(event)) is not None:
                            raise refusal
                        yield event
                        return
                    yield event
            except (OSError, ConnectionEnded) as error:
                raise LauncherAway(f"The launcher stopped answering ({error}).") from error

    def answer(self, request: Request, *, patience_s: float = 30.0) -> Event:
        """The end alone; raises as `ask` does."""
        *_, end = self.ask(request, patience_s=patience_s)
        return end

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise LauncherAway(f"The launcher does not answer ({error.strerror or error}).") from error
        return connection

    def _next(self, connection: socket.socket, interrupt: int | None, patience_s: float | None) -> Event:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if interrupt is not None:
            poll.register(interrupt, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if patience_s is None else patience_s * 1000)}
        if interrupt in ready:
            raise Interrupted
        if not ready:
            raise ConnectionEnded("it is silent")
        try:
            event = json.loads(read_frame(connection, most=EVENT_BYTES, seconds=FRAME_S))
        except (ValueError, RecursionError):
            raise ConnectionEnded("it does not speak JSON") from None
        if not isinstance(event, dict):
            raise ConnectionEnded("it does not speak in objects")
        return event


def pause_for(interrupt: int, seconds: float) -> None:
    """Wait, or raise Interrupted as soon as the descriptor is readable."""
    ends = time.monotonic() + seconds
    poll = select.poll()
    poll.register(interrupt, select.POLLIN)
    if poll.poll(max(0.0, ends - time.monotonic()) * 1000):
        raise Interrupted
