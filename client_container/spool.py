"""Finished attempts on disk until the server has stored them.

One file an attempt, whole and synced before it is sent. The files that its program made lie beside it, in files/ under
their hashes, and are brought to the server before it. Bounded in bytes: full, the client claims nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_container.blob import NamedBlob, Pass, named_blobs
from client_container.durable import UNFINISHED, sync_folder, write_durably
from client_container.failures import BadAnswer
from client_container.protocol import Attempt

log = logging.getLogger(__name__)

#: How many refused or broken files are kept for the volunteer to look at.
KEPT_ASIDE = 100
FILES = "files"


@dataclass(eq=False)
class Parcel:
    """One attempt on its way to the server."""

    chunk: str
    token: str
    size: int  #: bytes
    put_at: float  #: clock time at which it was finished; what an earlier process left is overdue
    path: Path
    data: bytes | None = None  #: the encoded attempt, while it could not be written to disk
    files: tuple[NamedBlob, ...] = ()  #: what has to be at the server before it
    proof: Pass | None = None  #: with which they are brought
    tries: int = 0  #: times that the server lacked one of them after all

    @property
    def weight(self) -> int:
        """Bytes that it takes here, its files included."""
        return self.size + sum({file.sha256: file.bytes for file in self.files}.values())


class Spool:
    """A folder of finished attempts, shared by the loop that fills it and whoever delivers."""

    def __init__(
        self, folder: Path, *, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._limit_bytes, self._clock = folder, limit_bytes, clock
        self._lock = threading.RLock()
        self._waiting: deque[Parcel] = deque()
        self._loaded: deque[Parcel] = deque()  #: whose files are still to be brought
        self._carried: Parcel | None = None  #: whose files are being brought
        self._taken: set[Parcel] = set()  #: that somebody is delivering
        self._unsaved: list[Parcel] = []
        self._bytes = 0
        self._number = 0

    def open(self) -> None:
        """Make the folders and take up what an earlier process left; raises OSError."""
        for name in ("", "refused", "broken", FILES):
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._folder.glob("*" + UNFINISHED):
            path.unlink(missing_ok=True)
        # Numbers go on rising over restarts: what was set aside is never overwritten.
        self._number = max(
            (int(path.stem) for path in self._folder.rglob("*.json") if path.stem.isdigit()), default=0
        )
        for path in sorted(self._folder.glob("*.json")):
            self._take_up(path)
        self._sweep_files()
        if found := len(self._waiting) + len(self._loaded):
            log.info("spool taken up", extra={"attempts": found, "bytes": self._bytes})

    def put(self, attempt: Attempt, contents: Path | None = None) -> None:
        """Keep an attempt, and the files that it names, which are taken out of the folder `contents`.

        With no room on the disk the attempt is kept in memory, and the spool counts as full. Raises OSError when a file
        cannot be kept; then nothing is.
        """
        if attempt.files and contents is not None:
            self._take_in(attempt.files, contents)
        data = attempt.to_json()
        with self._lock:
            self._number += 1
            path = self._folder / f"{self._number:012d}.json"
        parcel = Parcel(attempt.chunk, attempt.token, len(data), self._clock(), path, data)
        parcel.files, parcel.proof = attempt.files, _proof(vars(attempt))
        saved = self._save(parcel)
        with self._lock:
            self._bytes += parcel.weight
            (self._loaded if parcel.files else self._waiting).append(parcel)
            if not saved:
                self._unsaved.append(parcel)

    def take_loaded(self) -> Parcel | None:
        """The oldest attempt whose files are to be brought to the server; None without one.

        It must come back through `unloaded`, `still_loaded` or `instead`. One at a time.
        """
        with self._lock:
            self._carried = self._loaded.popleft() if self._loaded else None
            return self._carried

    def still_loaded(self, parcel: Parcel) -> None:
        """Not all of its files are at the server: it goes to the end, so that it cannot bar the others."""
        with self._lock:
            self._carried = None
            self._loaded.append(parcel)

    def unloaded(self, parcel: Parcel) -> None:
        """The server has its files: it may be delivered."""
        with self._lock:
            self._carried = None
            self._waiting.append(parcel)

    def load_again(self, parcel: Parcel) -> None:
        """The server lacks one of its files after all."""
        with self._lock:
            parcel.tries += 1
            self._taken.discard(parcel)
            self._loaded.append(parcel)

    def instead(self, parcel: Parcel, **changes: Any) -> None:
        """Its files cannot be brought: deliver the attempt with these fields changed, and without files."""
        data = parcel.data or self._read(parcel)
        if data is None:
            with self._lock:
                self._carried = None
            return
        message = {**json.loads(data), **changes}
        message.pop("files", None)
        with self._lock:
            before, files = parcel.weight, parcel.files
            parcel.data = json.dumps(message, separators=(",", ":")).encode("ascii")
            parcel.size, parcel.files, self._carried = len(parcel.data), (), None
            self._bytes += parcel.weight - before
            if not self._save(parcel):
                self._unsaved.append(parcel)
            self._waiting.append(parcel)
            self._drop_files(files)

    def file(self, sha256: str) -> Path:
        """Where a file of an attempt lies."""
        return self._folder / FILES / sha256

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

        Each must come back through `stored`, `refuse`, `load_again` or `give_back`.
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
                    self._taken.add(parcel)
                    room -= len(data)
        return taken

    def give_back(self, parcels: Iterable[Parcel]) -> None:
        """Not delivered: wait for the next try. A lone one goes to the end, so that it cannot bar the others."""
        returned = list(parcels)
        with self._lock:
            self._taken.difference_update(returned)
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
        self._drop_files(parcel.files)

    def refuse(self, parcel: Parcel, sentence: str) -> None:
        """The server will never take it: move it aside."""
        log.warning("result refused", extra={"chunk": parcel.chunk, "reason": sentence})
        self._forget(parcel)
        self._set_aside(parcel.path, "refused")
        self._drop_files(parcel.files)

    def _forget(self, parcel: Parcel) -> None:
        with self._lock:
            self._bytes -= parcel.weight
            self._taken.discard(parcel)
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
            parcel.files, parcel.proof = named_blobs(message, "files"), _proof(message)
            self._bytes += parcel.weight
            (self._loaded if parcel.files else self._waiting).append(parcel)

    def _read(self, parcel: Parcel) -> bytes | None:
        """The text of a file, or None after moving it aside: a disk may have lost or torn it."""
        try:
            data = parcel.path.read_bytes()
            message = json.loads(data)
            if not isinstance(message, dict) or not message.keys() >= _NEEDED:
                raise ValueError("not an attempt")
            named_blobs(message, "files")
        except (OSError, ValueError, RecursionError, BadAnswer) as error:
            log.warning("spool file broken", extra={"file": parcel.path.name, "reason": str(error)})
            self._bytes -= parcel.weight if parcel.size else 0
            self._set_aside(parcel.path, "broken")
            return None
        return data

    def _take_in(self, files: Iterable[NamedBlob], contents: Path) -> None:
        """Move files here, durably; raises OSError."""
        for sha256 in {file.sha256 for file in files}:
            with (contents / sha256).open("rb") as file:
                os.fsync(file.fileno())
            (contents / sha256).replace(self.file(sha256))
        sync_folder(self._folder / FILES)

    def _drop_files(self, files: Iterable[NamedBlob]) -> None:
        """Remove files that no other attempt here has as well."""
        with self._lock:
            needed = self._needed_files()
            for sha256 in {file.sha256 for file in files} - needed:
                with contextlib.suppress(OSError):
                    self.file(sha256).unlink()

    def _sweep_files(self) -> None:
        """Remove what was moved here by a client that died before it wrote down the attempt."""
        needed = self._needed_files()
        for path in (self._folder / FILES).iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _needed_files(self) -> set[str]:
        carried = [self._carried] if self._carried else []
        parcels = [*self._waiting, *self._loaded, *carried, *self._taken]
        return {file.sha256 for parcel in parcels for file in parcel.files}

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


def _proof(attempt: Mapping[str, Any]) -> Pass:
    return Pass(**{name: attempt[name] for name in ("chunk", "run", "token", "ticket")})


_NEEDED = frozenset(
    {"chunk", "run", "token", "ticket", "outcome", "stdout", "stderr_tail", "started", "ended"}
)
