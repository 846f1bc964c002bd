"""A chunk's files on their way to its program, and what it means for the chunk when they do not arrive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from client_container.blob import Blob
from client_container.blobs import Blobs
from client_container.download import Download
from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.protocol import Chunk
from client_container.runtime import GivenBack, Halt, HostBroken, JobHalted
from client_container.runtime.contract import CHUNK_FILE, BadJob, in_files
from client_container.stock import Stock


class Supply:
    """Lays out /in where there is no launcher, out of what this machine's clients keep."""

    def __init__(self, stock: Stock, blobs: Blobs) -> None:
        self._stock, self._blobs = stock, blobs
        self._download = Download(stock.folder)

    def __call__(self, chunk: Chunk, inside: Path, halt: Halt) -> None:
        """Put the chunk's files, and an input that is one, into the folder `inside`.

        Raises BadJob, GivenBack, HostBroken, JobHalted, OSError.
        """
        files = {file.name: file.blob for file in in_files(chunk)}
        if chunk.input_file is not None:
            files[CHUNK_FILE] = chunk.input_file
        for name, blob in files.items():
            path = inside / name
            _make_folders(inside, path.parent)
            with arriving():
                self._lay(chunk, blob, path, unless_halted(chunk, halt))

    def _lay(self, chunk: Chunk, blob: Blob, path: Path, going_on: Callable[[], object]) -> None:
        def bring(wanted: Blob) -> Path:
            return self._blobs.fetch(self._download, wanted, chunk.proof, going_on)

        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._stock.copy(blob, target, bring, going_on)
            os.fchmod(target, 0o444)
        finally:
            os.close(target)


def unless_halted(chunk: Chunk, halt: Halt) -> Callable[[], None]:
    """To be called now and then: raises JobHalted once the chunk is not wanted any more."""

    def look() -> None:
        if halt.is_set:
            raise JobHalted(chunk.id)

    return look


@contextlib.contextmanager
def arriving() -> Iterator[None]:
    """What a download raises, as runtimes say it: BadJob, GivenBack, HostBroken."""
    try:
        yield
    except (ServerUnavailable, LifeEnded) as error:
        raise GivenBack(f"A file of the chunk did not arrive ({error}).") from error
    except Refused as error:
        if error.status == 413:  # said by ourselves: no room
            raise HostBroken(error.sentence) from error
        raise BadJob(f"A file of the chunk cannot be had: {error.sentence}") from error


def _make_folders(top: Path, folder: Path) -> None:
    """Folders that the job may read, whatever our umask."""
    for part in reversed([folder, *folder.parents]):
        if part != top and top in part.parents:
            part.mkdir(exist_ok=True)
            part.chmod(0o755)
