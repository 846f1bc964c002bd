"""The door of each slot: its socket, who may knock, and which verb goes where.

Only the slot's own client container reaches the socket (its folder is mounted there and nowhere else, and belongs to
its uid); the kernel's word on who connected is compared all the same. Connections are few, requests small and in
time, or they are closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from client_container.launcher.errors import LauncherError
from client_container.launcher.files.slots import BadFile, FileMissing, Slots
from client_container.launcher.jobs.images import Images
from client_container.launcher.jobs.jobs import Jobs
from client_container.launcher.jobs.manifest import check_project, check_pull, is_archive
from client_container.launcher.line import events
from client_container.launcher.line.events import Event
from client_container.launcher.line.wire import (
    REQUEST_BYTES,
    REQUEST_S,
    ConnectionEnded,
    Files,
    Keep,
    Kill,
    Pull,
    Refusal,
    Request,
    Run,
    encode_frame,
    parse_request,
    read_frame,
)

log = logging.getLogger(__name__)

AT_ONCE = 8  #: connections of one slot
#: Requests that are read at a time, of all slots: parsing takes many times the memory of the text.
READ_AT_ONCE = 2
TURN_S = 2 * REQUEST_S  #: longest that a request waits to be read
SEND_S = 30.0  #: whoever takes no event for this long is gone
STOP_S = 5.0  #: longest that closing a door waits for its thread

_PEER = struct.Struct("3i")  #: pid, uid, gid


class Caller:
    """One accepted connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @property
    def uid(self) -> int:
        """Who connected, as the kernel knows."""
        found = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(found)[1])

    def request(self) -> Request:
        """What it asks for; raises Refusal, ConnectionEnded, OSError."""
        return parse_request(read_frame(self._connection, most=REQUEST_BYTES, seconds=REQUEST_S))

    def emit(self, event: Event) -> None:
        """Send an event; raises OSError when nobody takes it."""
        self._connection.settimeout(SEND_S)
        self._connection.sendall(encode_frame(event))

    def gone(self) -> bool:
        """Whether it hung up. It has nothing more to say: whatever it sends now is a reason to leave it, too."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))


class Turns:
    """Who may hand in a request: few at a time, and one of each slot, so that none keeps all the others waiting."""

    def __init__(self, most: int = READ_AT_ONCE, *, patience_s: float = TURN_S) -> None:
        self._all, self._patience_s = threading.BoundedSemaphore(most), patience_s
        self._slots: dict[int, threading.Lock] = {}

    @contextlib.contextmanager
    def of(self, slot: int) -> Iterator[None]:
        """A slot's turn; raises Refusal when it does not come."""
        own = self._slots.setdefault(slot, threading.Lock())
        with self._holding(own), self._holding(self._all):
            yield

    @contextlib.contextmanager
    def _holding(self, one: threading.Lock | threading.Semaphore) -> Iterator[None]:
        if not one.acquire(timeout=self._patience_s):
            raise Refusal("busy", "Too many requests are being read.")
        try:
            yield
        finally:
            one.release()


class Door:
    """Listens in the slots that were opened. `stats` says what a slot's client may know of how things stand."""

    def __init__(
        self,
        slots: Slots,
        jobs: Jobs,
        images: Images,
        stats: Callable[[int], Mapping[str, Any]],
    ) -> None:
        self._slots, self._jobs, self._images = slots, jobs, images
        self._stats = stats
        self._lock = threading.Lock()
        self._open: dict[int, _Listener] = {}
        self._turns = Turns()

    def open(self, slot: int) -> None:
        """Listen in a slot that was prepared; raises OSError. A door that is open already stays as it is."""
        with self._lock:
            if slot not in self._open:
                self._open[slot] = _Listener(self._slots, slot, self._serve)

    def close(self, slot: int) -> None:
        """Listen no longer; what runs there goes on until its client is missed."""
        with self._lock:
            listener = self._open.pop(slot, None)
        if listener is not None:
            listener.close()

    def stop(self) -> None:
        """Close all doors."""
        for slot in list(self._open):
            self.close(slot)

    def _serve(self, slot: int, caller: Caller) -> None:
        try:
            with self._turns.of(slot):
                request = caller.request()
            self._answer(slot, request, caller)
        except (Refusal, BadFile) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(_code(error), str(error))
            caller.emit(events.refused(refusal))
        except (ConnectionEnded, OSError):
            raise
        except LauncherError as error:
            caller.emit(events.refused(Refusal("engine", str(error))))

    def _answer(self, slot: int, request: Request, caller: Caller) -> None:
        if isinstance(request, Run):
            self._jobs.run(slot, request, caller.emit, caller.gone)
        elif isinstance(request, Kill):
            caller.emit(events.done(killed=self._jobs.kill(slot, request.token)))
        elif isinstance(request, Pull):
            caller.emit(events.done(image=self._pull(slot, request, caller)))
        elif isinstance(request, Files):
            check_project(request.project, self._jobs.policy())
            look = self._jobs.cache.look(slot, request.want, request.project)
            caller.emit(events.done(**vars(look)))
        elif isinstance(request, Keep):
            check_project(request.project, self._jobs.policy())
            kept = self._jobs.cache.keep(slot, request.sha256, request.project)
            caller.emit(events.done(kept=kept))
        else:
            caller.emit(events.done(**self._stats(slot)))

    def _pull(self, slot: int, request: Pull, caller: Caller) -> str:
        """The id of the image, which is here afterwards; raises Refusal, LauncherError."""
        check_pull(request, policy=self._jobs.policy())
        found = self._images.find(request.image)
        if found is not None:
            return found.id

        def progress(done: int, total: int) -> None:
            caller.emit(events.progress(done, total))

        if not is_archive(request.image):
            return self._images.pull(request.image, progress).id
        if request.file is None:
            raise Refusal("archive_needed", "The image is not here: bring its archive first.")
        with self._slots.open_file(slot, request.file) as archive:
            return self._images.load(archive, request.image, progress).id


def _code(error: BadFile) -> str:
    return "file_missing" if isinstance(error, FileMissing) else "bad_request"


class _Listener:
    """One slot's socket and the thread that accepts on it."""

    def __init__(self, slots: Slots, slot: int, serve: Callable[[int, Caller], None]) -> None:
        self._slot, self._uid, self._serve = slot, slots.uid(slot), serve
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._closing = contextlib.ExitStack()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(self._socket.fileno(), 0o600)  # the file takes its mode from here: it never is wider
            self._closing.enter_context(slots.place_socket(slot, self._socket.bind))
            self._socket.listen(AT_ONCE)
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._accept, name=f"door-{slot}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept nobody any more, and take the socket's file away."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(STOP_S)
        self._socket.close()
        self._closing.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except ConnectionError:
                continue
            except OSError:
                return
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._attend, args=(connection,), name=f"caller-{self._slot}", daemon=True
            ).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection:
                caller = Caller(connection)
                if caller.uid == self._uid:
                    self._serve(self._slot, caller)
                else:
                    log.warning("stranger at the door", extra={"slot": self._slot, "uid": caller.uid})
        except (ConnectionEnded, OSError) as error:
            log.info("caller left", extra={"slot": self._slot, "reason": str(error)})
        except Exception:
            log.exception("caller not answered", extra={"slot": self._slot})
        finally:
            self._places.release()
