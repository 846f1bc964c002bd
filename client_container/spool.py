"""Finished attempts on disk until the server has stored them.

One file an attempt, whole and synced before it is sent. Bounded in bytes: full, the client claims nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from client_container.durable import UNFINISHED, write_durably
from client_container.protocol import Attempt

log = logging.getLogger(__name__)

#: How many refused or broken files are kept for the volunteer to look at.
KEPT_ASIDE = 100


@dataclass(eq=False)
class Parcel:
    """One attempt on its way to the server."""

    chunk: str
    token: str
    size: int  #: bytes
    put_at: float  #: clock time at which it was finished; what an earlier process left is overdue
    path: Path
    data: bytes | None = None  #: the encoded attempt, while it could not be written to disk


class Spool:
    """A folder of finished attempts, shared by the loop that fills it and whoever delivers."""

    def __init__(
        self, folder: Path, *, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._limit_bytes, self._clock = folder, limit_bytes, clock
        self._lock = threading.RLock()
        self._waiting: deque[Parcel] = deque()
        self._unsaved: list[Parcel] = []
        self._bytes = 0
        self._number = 0

    def open(self) -> None:
        """Make the folders and take up what an earlier process left; raises OSError."""
        for folder in (self._folder, self._folder / "refused", self._folder / "broken"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._folder.glob("*" + UNFINISHED):
            path.unlink(missing_ok=True)
        # Numbers go on rising over restarts: what was set aside is never overwritten.
        self._number = max(
            (int(path.stem) for path in self._folder.rglob("*.json") if path.stem.isdigit()), default=0
        )
        for path in sorted(self._folder.glob("*.json")):
            self._take_up(path)
        if self._waiting:
            log.info("spool taken up", extra={"attempts": len(self._waiting), "bytes": self._bytes})

    def put(self, attempt: Attempt) -> None:
        """Keep an attempt. With no room on the disk it is kept in memory, and the spool counts as full."""
        data = attempt.to_json()
        with self._lock:
            self._number += 1
            path = self._folder / f"{self._number:012d}.json"
        parcel = Parcel(attempt.chunk, attempt.token, len(data), self._clock(), path, data)
        saved = self._save(parcel)
        with self._lock:
            self._bytes += parcel.size
            self._waiting.append(parcel)
            if not saved:
                self._unsaved.append(parcel)

    @property
    def full(self) -> bool:
        """Whether nothing new may be claimed or started."""
        with self._lock:
            return self._bytes >= self._limit_bytes or bool(self._unsaved)

    @property
    def waits_since(self) -> float | None:
        """Clock time at which the oldest attempt that nobody is delivering was finished; None without one."""
        with self._lock:
            return self._waiting[0].put_at if self._waiting else None

    def save_again(self) -> None:
        """Try once more to write what did not fit on the disk."""
        with self._lock:
            self._unsaved = [parcel for parcel in self._unsaved if not self._save(parcel)]

    def take(self, *, most: int, most_bytes: int) -> list[tuple[Parcel, bytes]]:
        """The oldest attempts within both bounds (one at least, if there is any), with their encoded text.

        Each must come back through `stored`, `refuse` or `give_back`.
        """
        taken: list[tuple[Parcel, bytes]] = []
        room = most_bytes
        with self._lock:
            while self._waiting and len(taken) < most:
                if taken and self._waiting[0].size > room:
                    break
                parcel = self._waiting.popleft()
                data = parcel.data or self._read(parcel)
                if data is not None:
                    taken.append((parcel, data))
                    room -= len(data)
        return taken

    def give_back(self, parcels: Iterable[Parcel]) -> None:
        """Not delivered: wait for the next try. A lone one goes to the end, so that it cannot bar the others."""
        returned = list(parcels)
        with self._lock:
            if len(returned) == 1:
                self._waiting.append(returned[0])
            else:
                self._waiting.extendleft(reversed(returned))

    def stored(self, parcel: Parcel) -> None:
        """The server holds it: forget it here."""
        self._forget(parcel)
        try:
            parcel.path.unlink(missing_ok=True)
        except OSError as error:  # it will be delivered once more, which changes nothing
            log.warning("spool file stays", extra={"file": parcel.path.name, "reason": error.strerror})

    def refuse(self, parcel: Parcel, sentence: str) -> None:
        """The server will never take it: move it aside."""
        log.warning("result refused", extra={"chunk": parcel.chunk, "reason": sentence})
        self._forget(parcel)
        self._set_aside(parcel.path, "refused")

    def _forget(self, parcel: Parcel) -> None:
        with self._lock:
            self._bytes -= parcel.size
            if parcel in self._unsaved:
                self._unsaved.remove(parcel)

    def _save(self, parcel: Parcel) -> bool:
        try:
            write_durably(parcel.path, parcel.data or b"")
        except OSError as error:
            log.error("spool cannot be written", extra={"chunk": parcel.chunk, "reason": error.strerror})
            return False
        parcel.data = None
        return True

    def _take_up(self, path: Path) -> None:
        parcel = Parcel("?", "?", 0, float("-inf"), path)
        data = self._read(parcel)
        if data is not None:
            message = json.loads(data)
            parcel.chunk, parcel.token, parcel.size = message["chunk"], message["token"], len(data)
            self._bytes += parcel.size
            self._waiting.append(parcel)

    def _read(self, parcel: Parcel) -> bytes | None:
        """The text of a file, or None after moving it aside: a disk may have lost or torn it."""
        try:
            data = parcel.path.read_bytes()
            message = json.loads(data)
            if not isinstance(message, dict) or not message.keys() >= _NEEDED:
                raise ValueError("not an attempt")
        except (OSError, ValueError, RecursionError) as error:
            log.warning("spool file broken", extra={"file": parcel.path.name, "reason": str(error)})
            self._bytes -= parcel.size
            self._set_aside(parcel.path, "broken")
            return None
        return data

    def _set_aside(self, path: Path, where: str) -> None:
        """Move a file to `refused` or `broken`, and remove the oldest there beyond the bounds."""
        try:
            path.replace(self._folder / where / path.name)
        except OSError:
            path.unlink(missing_ok=True)
        room = self._limit_bytes // 8
        newest_first = sorted((self._folder / where).glob("*.json"), reverse=True)
        for count, kept in enumerate(newest_first):
            room -= kept.stat().st_size
            if count >= KEPT_ASIDE or room < 0:
                kept.unlink(missing_ok=True)


_NEEDED = frozenset(
    {"chunk", "run", "token", "ticket", "outcome", "stdout", "stderr_tail", "started", "ended"}
)
