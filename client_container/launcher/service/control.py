"""The volunteer's line to the launcher: a socket of root's, one JSON request and one answer a connection."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from client_container.launcher.errors import LauncherError
from client_container.launcher.line.wire import ConnectionEnded, encode_frame, parse_object, read_frame

log = logging.getLogger(__name__)

REQUEST_BYTES = 64 * 2**10
ANSWER_BYTES = 16 * 2**20
REQUEST_S = 10.0
AT_ONCE = 16  #: connections served at the same time; more have to wait

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]  #: raises LauncherError, whose text is the answer

_CREDENTIALS = struct.Struct("3i")


class ControlError(LauncherError):
    """The launcher did not do what it was asked, or cannot be asked; one sentence."""


class ControlServer:
    """Answers verbs from a thread of its own until it is stopped. Only root and the service's own user are heard."""

    def __init__(self, path: Path, verbs: Mapping[str, Handler]) -> None:
        self._path, self._verbs = path, verbs
        self._socket: socket.socket | None = None
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def start(self) -> None:
        """Listen; a socket that a dead launcher left behind is replaced. Raises ControlError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)  # never, not even for a moment, open to others
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(before)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise ControlError(
                f"The control socket {self._path} cannot be made: {error.strerror or error}."
            ) from error
        self._socket = listener
        threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()

    def stop(self) -> None:
        """Listen no longer, and leave no socket behind."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._room.acquire()
            threading.Thread(
                target=self._serve, args=(connection,), name="control-request", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if peer_uid(connection) not in (0, os.geteuid()):
                    return
                answer = self._answer(connection)
                connection.settimeout(REQUEST_S)
                connection.sendall(encode_frame(answer))
        except (OSError, ConnectionEnded) as error:
            log.info("control request not answered", extra={"why": str(error)})
        finally:
            self._room.release()

    def _answer(self, connection: socket.socket) -> Mapping[str, Any]:
        body = read_frame(connection, most=REQUEST_BYTES, seconds=REQUEST_S)
        try:
            request = parse_object(body)
            verb = request.get("verb")
            handler = self._verbs.get(verb) if isinstance(verb, str) else None
            if handler is None:
                raise ControlError(f"The verbs are {', '.join(self._verbs)}.")
            return {"ok": True, **handler(request)}
        except LauncherError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            log.exception("control request failed")
            return {"ok": False, "error": f"The launcher met an error it cannot answer: {error!r}."}


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it."""
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(said)[1])


def ask(path: Path, verb: str, *, seconds: float, **fields: Any) -> dict[str, Any]:
    """The launcher's answer to a verb; raises ControlError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(REQUEST_S)
        try:
            connection.connect(str(path))
            connection.sendall(encode_frame({"verb": verb, **fields}))
            answer = json.loads(read_frame(connection, most=ANSWER_BYTES, seconds=seconds))
        except PermissionError:
            raise ControlError(
                "The launcher listens to root only: put sudo in front of the command."
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(f"No launcher runs here (nobody listens on {path}).") from None
        except ConnectionEnded as error:
            raise ControlError(
                f"The launcher did not answer {verb} within {seconds:.0f} s. {error}"
            ) from error
        except (OSError, ValueError) as error:
            raise ControlError(f"The launcher cannot be asked: {error}.") from error
    if not isinstance(answer, dict) or not answer.get("ok"):
        said = answer.get("error") if isinstance(answer, dict) else None
        raise ControlError(str(said or "The launcher answered nonsense."))
    return answer
