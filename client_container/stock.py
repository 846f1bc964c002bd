"""Files that jobs of this machine read, kept from one chunk to the next: for clients without a launcher.

Several clients may share the folder. Whoever fetches a file holds its lock meanwhile, which the kernel takes back
from a client that dies; the others wait, and find the file. What was used least recently goes when there is no room.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from client_container.blob import Blob, is_sha256
from client_container.download import UNFINISHED
from client_container.failures import Refused, ServerUnavailable
from client_container.launcher.files.slots import BadFile, copy

log = logging.getLogger(__name__)

LOCK = ".lock"
LOOK_S = 0.2  #: between two looks whether another client is done with a file
LEFT_S = 3600.0  #: whole files that nobody came for
TRIES = 3  #: a file that is gone, or damaged, each time it has just been fetched

#: Fetches a file into the folder, under its hash.
Bring = Callable[[Blob], Path]


class Stock:
    """One folder. `limit_bytes` bounds what is kept in it, not what is on its way."""

    def __init__(
        self, folder: Path, *, limit_bytes: int, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.folder, self._limit_bytes, self._sleep = folder, limit_bytes, sleep

    def copy(
        self, blob: Blob, target: int, bring: Bring, going_on: Callable[[], object] = lambda: None
    ) -> None:
        """Copy a file into an open one, fetched first if it is not here.

        What arrives in `target` has the right hash, whatever lay here. `going_on` is called while we wait, and ends
        the call with what it raises. Raises what `bring` raises, Refused, OSError.
        """
        for _ in range(TRIES):
            with self._alone(blob, going_on):
                if not self._whole(blob).exists():
                    self._make_room(blob)
                    bring(blob)
                if self._copied(blob, target):
                    return
                self._whole(blob).unlink(missing_ok=True)
            os.truncate(target, 0)
            os.lseek(target, 0, os.SEEK_SET)
        raise ServerUnavailable("A file did not stay whole on this host.")

    def _copied(self, blob: Blob, target: int) -> bool:
        try:
            source = os.open(self._whole(blob), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody tidied up
            return False
        try:
            os.utime(source)
            _, found = copy(source, target, most=blob.bytes)
        except BadFile:
            return False
        finally:
            os.close(source)
        return found == blob.sha256

    @contextlib.contextmanager
    def _alone(self, blob: Blob, going_on: Callable[[], object]) -> Iterator[None]:
        """Nobody else fetches, uses or removes this file meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{blob.sha256}{LOCK}"
        while (lock := _locked(path)) is None:
            going_on()
            self._sleep(LOOK_S)
        try:
            yield
        finally:
            if not self._whole(blob).exists():
                path.unlink(missing_ok=True)
            os.close(lock)

    def _make_room(self, coming: Blob) -> None:
        """Remove what was used least recently, until the limit holds with what is coming; raises Refused."""
        if coming.bytes > self._limit_bytes:
            raise Refused(
                413,
                f"file too large here: {coming.bytes / 1e6:.1f} MB, and {self._limit_bytes / 1e6:.1f} MB may be kept",
            )
        oldest_first = sorted(self._kept())
        taken = sum(size for _, size, _ in oldest_first)
        for _, size, path in oldest_first:
            if taken + coming.bytes <= self._limit_bytes:
                return
            if self._removed(path):
                taken -= size

    def _kept(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was used last, its size, and where it is; what is half here counts, too."""
        for path in self.folder.iterdir():
            if is_sha256(path.name.removesuffix(UNFINISHED)):
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    yield found.st_mtime, found.st_size, path

    def _removed(self, path: Path) -> bool:
        """Remove a file that nobody uses just now; False when somebody does."""
        name = self.folder / f"{path.name.removesuffix(UNFINISHED)}{LOCK}"
        lock = _locked(name)
        if lock is None:
            return False
        try:
            path.unlink(missing_ok=True)
            name.unlink(missing_ok=True)
        finally:
            os.close(lock)
        log.info("file no longer kept", extra={"sha256": path.name})
        return True

    def _whole(self, blob: Blob) -> Path:
        return self.folder / blob.sha256


def sweep(folder: Path, *, now: float) -> None:
    """Remove from a folder of files on their way what a client that died left behind long ago; `now` as time.time."""
    for path in folder.glob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if not path.name.endswith(UNFINISHED) and now - path.lstat().st_mtime > LEFT_S:
                path.unlink()


def _locked(path: Path) -> int | None:
    """The descriptor that holds a lock until it is closed; None while somebody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # held by another, or removed meanwhile: the next try makes a new one
    return None
