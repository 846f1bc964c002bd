"""Files that jobs of this host read, kept from one chunk to the next and fetched by one client only.

    cache/<sha256 of the project, shortened>/<sha256>

A client asks which files are here (`look`). What is not, one client may fetch: the others hear that they have to wait.
The grant expires when that client does not ask again in time. What it brought it offers (`keep`): the launcher copies
it, and the hash is that of the copy, so that nobody can put in anything else or change it later. A file belongs to the
project for which it was brought, and is given to no other project's jobs: who knows a hash has not thereby the file.
No client container sees any of this; jobs see their own files, by hard link, read-only.

What is on the disk is all that outlives a launcher: files and the times of their last use. Each is hashed once more
when a launcher meets it for the first time. What was used least recently goes when there is no room; what a client
was told that it is here stays for a while, or until its job has it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client_container.download import sha256_of
from client_container.launcher.files.folders import opened
from client_container.launcher.files.slots import BadFile, Slots, copy
from client_container.launcher.line.wire import WantedFile

log = logging.getLogger(__name__)

GRANT_S = 60.0  #: a client that fetches asks again within it
PIN_S = 900.0  #: what a client was told that it is here stays so long, unless its job starts before
FREE = 64 * 2**20  #: bytes of the file system that keeping a file leaves free
PARTIAL = ".partial"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

_Key = tuple[str, str]  #: folder of the project, sha256


@dataclass(frozen=True)
class Look:
    """What there is of the files that were asked for, by sha256."""

    here: list[str] = field(default_factory=list)
    fetch: list[str] = field(default_factory=list)  #: the one who asked is to bring them
    wait: list[str] = field(default_factory=list)  #: another client is bringing them


class Cache:
    """The files of one launcher instance. `limit` tells the bytes they may take; for any number of threads."""

    def __init__(
        self,
        folder: Path,
        slots: Slots,
        *,
        limit: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._slots, self._limit, self._clock = folder, slots, limit, clock
        self._lock = threading.Lock()
        self._grants: dict[_Key, tuple[int, float]] = {}  #: slot, and until when
        self._pins: dict[int, dict[_Key, float]] = {}  #: by slot: until when
        self._known: set[_Key] = set()  #: hashed by this launcher
        self._coming = 0  #: bytes that are being copied in

    def prepare(self) -> None:
        """Make the folder, and remove what a launcher that died left half done; raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.glob(f"*/*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def look(self, slot: int, want: Sequence[WantedFile], project: str) -> Look:
        """Which of these are here, and what the slot's client is to do about the others. Raises OSError."""
        found = Look()
        self.release(slot)
        for file in want:
            key = (_folder_name(project), file.sha256)
            if self._whole(key):
                self._pin(slot, key)
                found.here.append(file.sha256)
            elif self._granted(slot, key):
                found.fetch.append(file.sha256)
            else:
                found.wait.append(file.sha256)
        return found

    def keep(self, slot: int, sha256: str, project: str) -> bool:
        """Copy a file that the slot's client brought; False when there is no room: then it stays where it is.

        Raises BadFile when it is not what it is named by, or is not there.
        """
        key = (_folder_name(project), sha256)
        try:
            kept = self._whole(key) or self._copy(slot, key)
        except OSError as error:
            log.warning("file not kept", extra={"sha256": sha256, "reason": error.strerror})
            kept = False
        finally:
            with self._lock:
                if self._grants.get(key, (slot, 0.0))[0] == slot:
                    self._grants.pop(key, None)
        if kept:
            self._pin(slot, key)
        return kept

    def link(self, sha256: str, project: str, target: Path) -> int | None:
        """Give a job the file, under a path where nothing is yet; answers its bytes, or None when it is not here.

        Raises OSError.
        """
        key = (_folder_name(project), sha256)
        if not self._whole(key):
            return None
        source = self._path(key)
        try:
            os.utime(source)
            _link(source, target)
        except FileNotFoundError:  # removed just now
            return None
        return target.stat().st_size

    def release(self, slot: int) -> None:
        """The slot's job has its files: they need not stay for it any longer."""
        with self._lock:
            self._pins.pop(slot, None)

    def trim(self) -> None:
        """Keep to the limit, which may have been lowered, and forget what has expired."""
        now = self._clock()
        with self._lock:
            self._grants = {key: grant for key, grant in self._grants.items() if grant[1] > now}
            self._make_room(0)

    # ---

    def _whole(self, key: _Key) -> bool:
        """Whether the file is here, with the content that it is named by."""
        path = self._path(key)
        if key in self._known:
            if path.exists():
                return True
            self._known.discard(key)
            return False
        try:
            whole = sha256_of(path) == key[1]
        except FileNotFoundError:
            return False
        if whole:
            self._known.add(key)
        else:
            log.warning("kept file damaged", extra={"sha256": key[1]})
            path.unlink(missing_ok=True)
        return whole

    def _granted(self, slot: int, key: _Key) -> bool:
        now = self._clock()
        with self._lock:
            holder, until = self._grants.get(key, (slot, now))
            if holder != slot and until > now:
                return False
            self._grants[key] = (slot, now + GRANT_S)
            return True

    def _pin(self, slot: int, key: _Key) -> None:
        with self._lock:
            self._pins.setdefault(slot, {})[key] = self._clock() + PIN_S

    def _copy(self, slot: int, key: _Key) -> bool:
        folder, sha256 = key
        with self._slots.open_file(slot, sha256) as source:
            size = os.fstat(source).st_size
            with self._room(size) as enough:
                if not enough:
                    return False
                (self._folder / folder).mkdir(mode=0o700, exist_ok=True)
                with opened(self._folder / folder) as within:
                    _copy_in(source, within, sha256, most=size)
        self._known.add(key)
        log.info("file kept", extra={"sha256": sha256, "bytes": size})
        return True

    @contextlib.contextmanager
    def _room(self, size: int) -> Iterator[bool]:
        """Room for so many bytes, which nobody else is given meanwhile; or False."""
        with self._lock:
            enough = self._make_room(size)
            self._coming += size if enough else 0
        try:
            yield enough
        finally:
            with self._lock:
                self._coming -= size if enough else 0

    def _make_room(self, size: int) -> bool:
        """Remove what was used least recently and nobody is about to use, until it fits; False if it does not."""
        limit, entries = self._limit(), sorted(self._entries())
        taken = sum(one for _, one, _ in entries) + self._coming
        now, pinned = self._clock(), set()
        for pins in self._pins.values():
            pinned |= {key for key, until in pins.items() if until > now}
        if size > limit:
            return False
        for _, bytes_, key in entries:
            if taken + size <= limit and self._fits_on_disk(size):
                return True
            if key not in pinned:
                self._path(key).unlink(missing_ok=True)
                self._known.discard(key)
                taken -= bytes_
                log.info("kept file removed", extra={"sha256": key[1]})
        return taken + size <= limit and self._fits_on_disk(size)

    def _fits_on_disk(self, size: int) -> bool:
        found = os.statvfs(self._folder)
        return size == 0 or size + self._coming + FREE <= found.f_bavail * found.f_frsize

    def _entries(self) -> Iterator[tuple[float, int, _Key]]:
        """When each file was used last, its bytes, and which it is."""
        for path in self._folder.glob("*/*"):
            if _SHA256.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    yield found.st_mtime, found.st_size, (path.parent.name, path.name)

    def _path(self, key: _Key) -> Path:
        return self._folder / key[0] / key[1]


def _folder_name(project: str) -> str:
    return hashlib.sha256(project.encode()).hexdigest()[:32]


def _copy_in(source: int, within: int, sha256: str, *, most: int) -> None:
    """Copy an open file into a folder under its hash, durably; raises BadFile for another content, OSError."""
    partial = f".{os.urandom(8).hex()}{PARTIAL}"
    target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=within)
    try:
        _, found = copy(source, target, most=most)
        if found != sha256:
            raise BadFile(f"The file {sha256} has another content than its name says.")
        os.fchmod(target, 0o444)
        os.fsync(target)
        os.rename(partial, sha256, src_dir_fd=within, dst_dir_fd=within)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=within)
        raise
    finally:
        os.close(target)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file systems do not allow that."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        with source.open("rb") as inside:
            made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copy(inside.fileno(), made, most=2**63)
                os.fchmod(made, 0o444)
            finally:
                os.close(made)
