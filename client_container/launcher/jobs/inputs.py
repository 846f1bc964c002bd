"""Laying out /in: the chunk and its files, out of what this host keeps or what the slot's client brought."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client_container.launcher.files import folders
from client_container.launcher.files.cache import Cache
from client_container.launcher.files.folders import opened
from client_container.launcher.files.slots import FileMissing, Slots
from client_container.launcher.jobs.places import readable
from client_container.launcher.line.wire import GivenFile, Refusal
from client_container.runtime.contract import CHUNK_FILE

TOO_MUCH = "The chunk's data is more than this host has room for."


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Where the files of one job come from."""

    cache: Cache
    slots: Slots
    slot: int
    project: str

    def put(self, sha256: str, target: Path, *, most: int) -> int:
        """Put a file under a path where nothing is yet, readable for all; answers its bytes.

        Raises Refusal, also when there is no such file or it has more than `most` bytes; BadFile, OSError.
        """
        size = self.cache.link(sha256, self.project, target)
        if size is None:
            size = self._copy(sha256, target, most)
        if size > most:
            raise Refusal("not_allowed", TOO_MUCH)
        return size

    def _copy(self, sha256: str, target: Path, most: int) -> int:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(made, 0o444)
            return self.slots.copy_file(self.slot, sha256, made, most=max(0, most))
        except FileMissing as error:
            raise Refusal("file_missing", str(error)) from error
        finally:
            os.close(made)


def fill_in(folder: Path, inbox: Inbox, data: bytes | str, files: Sequence[GivenFile], *, most: int) -> int:
    """Lay out /in: the chunk (its bytes, or the sha256 of a file) and its files; answers how many bytes they are.

    The folder is ours alone (the job sees it read-only), so that nothing can be put in our way while we write. Raises
    Refusal, BadFile, OSError.
    """
    inside = folder / "in"
    with opened(inside) as descriptor:
        folders.empty(descriptor)
    room = most - (0 if isinstance(data, str) else len(data))
    if room < 0:
        raise Refusal("not_allowed", TOO_MUCH)
    for file in files:
        path = inside / file.name
        for parent in reversed(path.relative_to(inside).parents[:-1]):
            readable(inside / parent)
        room -= inbox.put(file.sha256, path, most=room)
    chunk = inside / CHUNK_FILE
    if isinstance(data, str):
        room -= inbox.put(data, chunk, most=room)
    else:
        chunk.write_bytes(data)
        chunk.chmod(0o444)
    return most - room
