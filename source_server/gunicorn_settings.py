"""gunicorn's hooks: a client that falls silent, or drips, in the middle of a message loses its connection, not our
thread; and the application is told at which address it is served.

What a request's head may take is bounded here; its body is paced where it is read (`web/http/paced_body.py`).
"""

from __future__ import annotations

import importlib
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from source_server.deadlines import deadlines

BOUND = "dockercomp.bound"  #: the app's extension that wants to know its address
SILENCE_S = 30  #: longest silence within a request or an answer
HEAD_S = 15.0  #: for all of a request's head, from its first byte or from when a connection was made
REST_S = 10.0  #: for what is left of a body that nobody wanted
PARTING_S = 1.0  #: for a client to take its answer and hang up
PARTING_BYTES = 64 * 1024
LOOK_S = 0.01  #: between two looks at whether it has it
AT_ONCE = struct.pack("ii", 1, 0)  #: closed with a reset
FIN_WAIT2 = 5  #: a connection's state in `TCP_INFO`: all that we said is acknowledged, our last word included


def when_ready(server: Any) -> None:
    """Before the web processes are forked: their sockets inherit patience from the one that listens (Linux).

    And what they import is imported once, and is in memory once.
    """
    patience = struct.pack("ll", SILENCE_S, 0)
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, patience)
    importlib.import_module(server.app.app_uri.partition(":")[0])


def post_worker_init(worker: Any) -> None:
    """In each web process, once its application is made."""
    from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

    if isinstance(worker, ThreadWorker):
        worker.handle = _in_time(worker.handle)
    host, port = worker.sockets[0].getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing is bound here
    bound = getattr(worker.wsgi, "extensions", {}).get(BOUND)
    if bound is not None:
        bound((everywhere.get(host, host), port))


def pre_request(worker: Any, request: Any) -> None:
    """The head has come."""
    deadlines.drop(request.unreader.sock)


def post_request(worker: Any, request: Any, environ: Any, answer: Any) -> None:
    """It is answered; gunicorn still reads what is left of its body."""
    deadlines.set(request.unreader.sock, time.monotonic() + REST_S)


def _in_time(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """gunicorn's `handle` of one request: its head has a deadline, and who is to go is seen off by this thread."""

    def handle_in_time(connection: Any) -> Any:
        first = connection.sock
        deadlines.set(first, time.monotonic() + HEAD_S)
        try:
            stays = handle(connection)
        finally:
            deadlines.drop(first)
            deadlines.drop(connection.sock)  # another one, with TLS
        if not stays:
            _see_off(connection.sock)
        return stays

    return handle_in_time


def _see_off(connection: socket.socket) -> None:
    """Wait until the client hangs up, or not: gunicorn would wait with the thread that accepts all the others."""
    until, left = time.monotonic() + PARTING_S, PARTING_BYTES
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and (rest_s := until - time.monotonic()) > 0:
            connection.settimeout(rest_s)
            piece = connection.recv(4096)
            if not piece:
                break
            left -= len(piece)
    with suppress(OSError):
        # Who still sends would wait for room, a minute long: it is to look at its answer now.
        if left < PARTING_BYTES and _has_it_all(connection, until):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connection.shutdown(socket.SHUT_RD)


def _has_it_all(connection: socket.socket, until: float) -> bool:
    """Whether the client's machine has all of the answer by then; elsewhere than on Linux that is not known."""
    if not hasattr(socket, "TCP_INFO"):
        return False
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != FIN_WAIT2:
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_S)
    return True
