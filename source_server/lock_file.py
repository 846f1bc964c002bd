"""A file that one process holds at a time; the kernel lets go of it when that process dies."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

#: Somebody who only looks whether the lock is held, holds it for an instant: ask again for this long.
_PATIENCE_S = 0.5


class LockHeld(Exception):
    """Another process holds the lock; `pid` is its process id, None when it is not known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by {f'process {pid}' if pid else 'another process'}.")
        self.path = path
        self.pid = pid


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    pid: int | None  #: process id, None when the file does not say


class LockFile:
    """An exclusive lock on `path`, with the holder's process id written inside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Hold the lock until `release` or the end of this process; raises LockHeld."""
        if self._fd is not None:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(fd, fcntl.LOCK_EX):
            os.close(fd)
            raise LockHeld(self._path, _pid_in(self._path))
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of one name."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def find_holder(path: Path) -> Holder | None:
    """Who holds the lock on `path` just now (any process that flocks the file), or None."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _lock(fd, fcntl.LOCK_SH, patience_s=0.0):
            return None
        return Holder(_pid_in(path))
    finally:
        os.close(fd)


def _lock(fd: int, kind: int, *, patience_s: float = _PATIENCE_S) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _pid_in(path: Path) -> int | None:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    return int(text) if text.isdecimal() else None
