"""Folders that hostile programs wrote: measured, emptied and read by descriptor, without following any link.

Every step is made relative to an open folder and refuses links (O_NOFOLLOW), which is what openat2 does with
RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: no path of somebody else's making is ever resolved.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 32  #: levels that are looked into

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NoPlainFile(OSError):
    """What lies there is not a regular file with one link."""


@dataclass(frozen=True)
class Usage:
    """What lies in a folder."""

    bytes: int = 0  #: on disk: holes do not count
    inodes: int = 0
    too_deep: bool = False  #: it goes on below the deepest level that is looked into

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.bytes + other.bytes, self.inodes + other.inodes, self.too_deep or other.too_deep)


@contextlib.contextmanager
def opened(folder: str | Path, *, within: int | None = None) -> Iterator[int]:
    """The folder's descriptor; its last part may not be a link. Raises OSError."""
    descriptor = os.open(folder, _FOLDER, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_plain_file(name: str, *, within: int) -> int:
    """A descriptor of a regular file with one link; raises NoPlainFile for anything else, OSError."""
    # Looked at before it is opened, too: opening alone may do something, if it is a device.
    _require_plain(os.stat(name, dir_fd=within, follow_symlinks=False), name)
    descriptor = os.open(name, _FILE, dir_fd=within)
    try:
        _require_plain(os.fstat(descriptor), name)
    except NoPlainFile:
        os.close(descriptor)
        raise
    return descriptor


def _require_plain(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise NoPlainFile(f"{name} is not a regular file with one link")


def measure(folder: int, *, most_inodes: int, level: int = 0) -> Usage:
    """What lies below, while programs may be changing it; no more than about `most_inodes` are looked at."""
    size = inodes = 0
    too_deep = False
    with _entries(folder) as entries:
        for entry in entries:
            inodes += 1
            if inodes > most_inodes:
                break
            try:
                found = entry.stat(follow_symlinks=False)
                size += found.st_blocks * 512
                if not stat.S_ISDIR(found.st_mode):
                    continue
                if level + 1 >= DEEPEST:
                    too_deep = True
                    continue
                with opened(entry.name, within=folder) as below:
                    inner = measure(below, most_inodes=most_inodes - inodes, level=level + 1)
            except OSError:  # gone, or something else by now
                continue
            size, inodes, too_deep = size + inner.bytes, inodes + inner.inodes, too_deep or inner.too_deep
    return Usage(size, inodes, too_deep)


def empty(folder: int, *, most: int | None = None) -> bool:
    """Remove all that lies below, however deep; False once more than `most` entries were met, and some still lie there.

    Nobody else may be writing there. A deep folder is emptied by lifting its folders to the top one after the other,
    so that neither our stack nor our descriptors bound its depth. Raises OSError.
    """
    met = 0
    while True:
        with _entries(folder) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if not names:
            return True
        for name, is_folder in names:
            met += 1
            if is_folder:
                met += _flatten(folder, name, first=met)
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
            if most is not None and met > most:
                return False


def _flatten(top: int, name: str, *, first: int) -> int:
    """Empty one folder of the top folder, lifting the folders in it to the top; returns how many entries it had."""
    _open_up(top, name)
    with opened(name, within=top) as folder:
        with _entries(folder) as entries:
            inner = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for number, (inner_name, is_folder) in enumerate(inner, first):
            if is_folder:
                _open_up(folder, inner_name)
                _lift(folder, inner_name, top, f".lifted-{number}")
            else:
                os.unlink(inner_name, dir_fd=folder)
    return len(inner)


def _lift(source: int, name: str, top: int, wanted: str) -> None:
    """Move a folder to the top under a name that nothing has there."""
    while True:
        try:
            os.mkdir(wanted, 0o700, dir_fd=top)
        except FileExistsError:
            wanted += "-"
            continue
        os.rename(name, wanted, src_dir_fd=source, dst_dir_fd=top)  # onto the empty one just made
        return


def _open_up(within: int, name: str) -> None:
    """A program may have taken its own rights to a folder away; matters to those who are not root."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        with contextlib.suppress(PermissionError):
            Path(f"/proc/self/fd/{descriptor}").chmod(0o700)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder of ours with all that programs put there; raises OSError."""
    with opened(folder) as descriptor:
        empty(descriptor)
    folder.rmdir()


@contextlib.contextmanager
def _entries(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    # A descriptor that was read before stands at its end, and a copy of it shares that place.
    os.lseek(folder, 0, os.SEEK_SET)
    with os.scandir(folder) as entries:
        yield entries
