"""gunicorn's hooks: a client that falls silent in the middle of a message loses its connection, not our thread."""

from __future__ import annotations

import socket
import struct
from typing import Any

SILENCE_S = 30  #: longest silence within a request or an answer


def when_ready(server: Any) -> None:
    """Sockets inherit it from the one that listens (Linux); before the web processes are forked."""
    patience = struct.pack("ll", SILENCE_S, 0)
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, patience)
