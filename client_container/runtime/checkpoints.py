"""$DOCKERCOMP_CHECKPOINT without a launcher: a folder for each chunk that was begun and has no result yet.

It outlives the client, so that the next attempt here goes on, and goes when the chunk's attempt is reported, when
nobody came back for it, or when there is too much of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from client_container.launcher.files.folders import Usage, measure, opened
from client_container.protocol import Chunk
from client_container.runtime.folders import private_parent, remove

log = logging.getLogger(__name__)

KEPT_S = 7 * 86400.0  #: a checkpoint that nobody came back for
MOST = 50
MOST_BYTES = 2**30  #: of all together
MOST_INODES = 10_000  #: of one


class Checkpoints:
    """One folder, with a folder for each chunk and run in it. `clock` as time.time."""

    def __init__(self, folder: Path, *, uid: int | None, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._uid, self._clock = folder, uid, clock

    def place(self, chunk: Chunk) -> Path:
        """The chunk's folder, with what an earlier attempt left in it; raises OSError."""
        private_parent(self._folder)
        path = self._path(chunk)
        path.mkdir(mode=0o700, exist_ok=True)
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)
        return path

    def leave(self, chunk: Chunk) -> None:
        """The attempt ended without anything to report: keep what it left, within the bounds."""
        path, now = self._path(chunk), self._clock()
        with contextlib.suppress(OSError):
            path.chmod(0o700)  # its program may have shut us out
            os.utime(path, (now, now))
        self.sweep()

    def forget(self, chunk: Chunk) -> None:
        """The chunk's attempt is on its way to the server."""
        remove(self._path(chunk))
        self._tidy()

    def sweep(self) -> None:
        """Remove checkpoints that are too old or too big, and the oldest of too many. Nobody may be using any."""
        now, taken = self._clock(), 0
        ages = sorted((now - path.lstat().st_mtime, path) for path in self._folder.glob("*"))
        for place, (age, path) in enumerate(ages):
            usage = _usage(path)
            taken += usage.bytes
            too_much = usage.inodes > MOST_INODES or usage.too_deep or taken > MOST_BYTES
            if age > KEPT_S or place >= MOST or too_much or usage.inodes == 0:
                remove(path)
        self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, chunk: Chunk) -> Path:
        return self._folder / hashlib.sha256(f"{chunk.id}\0{chunk.run}".encode()).hexdigest()


def _usage(path: Path) -> Usage:
    try:
        with opened(path) as folder:
            return measure(folder, most_inodes=MOST_INODES + 1)
    except OSError:
        return Usage()
