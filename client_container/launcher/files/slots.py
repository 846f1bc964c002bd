"""The slots' folders: what a client container and the launcher share, and nothing else does.

A slot's folder belongs to its client (0700, its uid), who may put there what it likes, links and devices' names
included. The launcher therefore reaches into it by descriptor, follows no link there, and takes only regular files
with one link whose content has the hash that they are named by.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from client_container.launcher.errors import LauncherError
from client_container.launcher.files.folders import NoPlainFile, open_plain_file, opened

SOCKET = "launcher.sock"
FILES = "files"
SPOOL = "spool"
KEY_FILE = "account.key"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PIECE = 2**20


class BadFile(LauncherError):
    """A file that is not what it is said to be; one sentence."""


class FileMissing(BadFile):
    """There is no such file."""


class Slots:
    """The folders of all slots of one launcher instance, below `folder`."""

    def __init__(self, folder: Path, *, first_uid: int) -> None:
        self._folder, self._first_uid = folder, first_uid

    def uid(self, slot: int) -> int:
        """User and group of the slot's client container."""
        return self._first_uid + slot

    def folder(self, slot: int) -> Path:
        """What is mounted into the client container."""
        return self._folder / str(slot)

    def prepare(self, slot: int, key: bytes) -> Path:
        """Make (or mend) the slot's folder with the account's key in it; returns it. Raises OSError."""
        uid = self.uid(slot)
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.folder(slot).mkdir(mode=0o700, exist_ok=True)
        with self._open(slot) as folder:
            _own(folder, uid, 0o700)
            for name in (FILES, SPOOL):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
                with opened(name, within=folder) as inner:
                    _own(inner, uid, 0o700)
            _write(folder, KEY_FILE, key, uid=uid, mode=0o400)
        return self.folder(slot)

    @contextlib.contextmanager
    def open_file(self, slot: int, sha256: str) -> Iterator[int]:
        """A descriptor of a file that the client put into files/; its content is not checked yet.

        Raises FileMissing, BadFile.
        """
        if _SHA256.fullmatch(sha256) is None:
            raise BadFile(f"{sha256[:80]!r} is not a hex sha256.")
        try:
            with self._open(slot) as folder, opened(FILES, within=folder) as files:
                descriptor = open_plain_file(sha256, within=files)
        except FileNotFoundError as error:
            raise FileMissing(f"The file {sha256} is not here.") from error
        except (NoPlainFile, OSError) as error:
            raise BadFile(f"The file {sha256} cannot be read ({error.strerror or error}).") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def copy_file(self, slot: int, sha256: str, target: int, *, most: int) -> int:
        """Copy such a file into an open one; answers its size. Raises BadFile when hash or size is not right."""
        with self.open_file(slot, sha256) as source:
            size, found = copy(source, target, most=most)
        if found != sha256:
            raise BadFile(f"The file {sha256} has another content than its name says.")
        return size

    def store_file(self, slot: int, source: int, *, most: int) -> tuple[str, int]:
        """Put what an open file holds into files/ under its hash; answers hash and size. Raises BadFile, OSError."""
        with self._open(slot) as folder, opened(FILES, within=folder) as files:
            return store(files, source, most=most, own=lambda target: _own(target, self.uid(slot), 0o600))

    @contextlib.contextmanager
    def place_socket(self, slot: int, bind: Callable[[str], None]) -> Iterator[None]:
        """Have `bind` make the slot's socket at the path it is given, owned by the client alone. Raises OSError."""
        with self._open(slot) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET, dir_fd=folder)
            # By descriptor: no link is followed, and a long path does not matter (a socket's has 107 bytes).
            bind(f"/proc/self/fd/{folder}/{SOCKET}")
            os.chown(SOCKET, self.uid(slot), self.uid(slot), dir_fd=folder, follow_symlinks=False)
        yield
        with contextlib.suppress(OSError), self._open(slot) as folder:
            os.unlink(SOCKET, dir_fd=folder)

    def _open(self, slot: int) -> contextlib.AbstractContextManager[int]:
        return opened(self.folder(slot))


def store_file(folder: Path, source: int, *, most: int) -> tuple[str, int]:
    """Put what an open file holds into a folder of ours under its hash; as Slots.store_file."""
    with opened(folder) as files:
        return store(files, source, most=most)


def store(
    files: int, source: int, *, most: int, own: Callable[[int], object] = lambda target: None
) -> tuple[str, int]:
    """Copy an open file into the open folder `files` under its hash, `own` seeing to whose it is.

    Answers hash and size. Raises BadFile beyond `most` bytes, OSError.
    """
    partial = f".{os.urandom(8).hex()}.partial"
    target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=files)
    try:
        size, sha256 = copy(source, target, most=most)
        own(target)
        os.rename(partial, sha256, src_dir_fd=files, dst_dir_fd=files)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=files)
        raise
    finally:
        os.close(target)
    return sha256, size


def copy(source: int, target: int, *, most: int) -> tuple[int, str]:
    """Copy one open file into another; answers size and hex sha256. Raises BadFile beyond `most` bytes."""
    digest, size = hashlib.sha256(), 0
    while data := os.read(source, _PIECE):
        size += len(data)
        if size > most:
            raise BadFile(f"A file is bigger than the {most} bytes that there is room for.")
        digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(target, rest) :]
    return size, digest.hexdigest()


def _write(folder: int, name: str, content: bytes, *, uid: int, mode: int) -> None:
    """Replace a file, so that its reader sees the old or the new one."""
    partial = f".{name}.{os.urandom(8).hex()}"
    target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(target, "wb", closefd=False) as file:
            file.write(content)
        _own(target, uid, mode)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(target)


def _own(descriptor: int, uid: int, mode: int) -> None:
    os.fchown(descriptor, uid, uid)
    os.fchmod(descriptor, mode)
