"""gunicorn's hooks: a client that falls silent in the middle of a message loses its connection, not our thread; and the
application is told at which address it is served."""

from __future__ import annotations

import socket
import struct
from typing import Any

BOUND = "dockercomp.bound"  #: the app's extension that wants to know its address
SILENCE_S = 30  #: longest silence within a request or an answer


def when_ready(server: Any) -> None:
    """Sockets inherit it from the one that listens (Linux); before the web processes are forked."""
    patience = struct.pack("ll", SILENCE_S, 0)
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, patience)


def post_worker_init(worker: Any) -> None:
    """In each web process, once its application is made."""
    host, port = worker.sockets[0].getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing is bound here
    bound = getattr(worker.wsgi, "extensions", {}).get(BOUND)
    if bound is not None:
        bound((everywhere.get(host, host), port))
