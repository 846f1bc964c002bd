"""Brings the archives of job images from the server: in pieces that may break off, checked before they get a name."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from client_container.connection import ServerConnection
from client_container.failures import BadAnswer, Refused, ServerUnavailable
from client_container.protocol import Archive, Job

log = logging.getLogger(__name__)

UNFINISHED = ".part"
PIECE = 2**20
KEPT_FREE = 16 * 2**20  #: bytes
TRIES = 5  #: in a row that bring nothing
PAUSE_S = 2.0  #: after the first of them; twice as long after each further one
ABANDONED_S = 24 * 3600.0  #: what was begun so long ago is not gone on with


class Archives:
    """Downloads into one folder. A file lies there under its sha256 once it is whole, and under no other name."""

    def __init__(
        self,
        connection: ServerConnection,
        folder: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection, self._folder = connection, folder
        self._sleep, self._clock = sleep, clock

    def __call__(self, job: Job) -> str:
        """Fetch the archive of the job's image; answers its hex sha256, which is its name in the folder.

        Goes on where an earlier call broke off. Raises ServerUnavailable, LifeEnded, Refused (also when the server has
        no archive of it, or there is no room for it), OSError.
        """
        archive, image = job.archive, job.image or ""
        if archive is None:
            raise Refused(404, "The server has no archive of this image.")
        if not re.fullmatch(r"[0-9a-f]{64}", archive.sha256) or not re.fullmatch(
            r"sha256:[0-9a-f]{64}", image
        ):
            raise BadAnswer("The server names an image's archive in a way that cannot be.")
        whole = self._folder / archive.sha256
        if whole.exists() and _sha256(whole) == archive.sha256:
            return archive.sha256
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep(but=archive.sha256)
        partial = self._folder / f"{archive.sha256}{UNFINISHED}"
        self._complete(partial, image, archive)
        partial.replace(whole)
        log.info("archive here", extra={"image": image, "bytes": archive.bytes})
        return archive.sha256

    def _complete(self, partial: Path, image: str, archive: Archive) -> None:
        """Fetch what is missing, anew once if it turns out to be wrong; raises BadAnswer if it is wrong again."""
        for last in (False, True):
            self._fetch(partial, image, archive)
            if _sha256(partial) == archive.sha256:
                return
            partial.unlink()
            if last:
                raise BadAnswer("The archive of the image has another content than the server said.")

    def _fetch(self, partial: Path, image: str, archive: Archive) -> None:
        tries, pause_s = 0, PAUSE_S
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            while (have := file.seek(0, os.SEEK_END)) < archive.bytes:
                _require_room(file, archive.bytes - have)
                try:
                    self._go_on(file, have, image, archive)
                except ServerUnavailable as error:
                    tries = 1 if file.seek(0, os.SEEK_END) > have else tries + 1
                    if tries >= TRIES:
                        raise
                    self._sleep(max(pause_s * 2 ** (tries - 1), error.retry_after or 0.0))
            file.truncate(archive.bytes)

    def _go_on(self, file: BinaryIO, start: int, image: str, archive: Archive) -> None:
        with self._connection.image(image, start=start) as (begins, pieces):
            if begins > start:
                raise BadAnswer("The server sends another part of the image than was asked for.")
            file.seek(begins)
            file.truncate()
            left = archive.bytes - begins
            for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise BadAnswer("The archive of the image is longer than the server said.")
                file.write(piece)

    def _sweep(self, *, but: str) -> None:
        """Remove what was begun long ago, and what another image left behind."""
        for path in self._folder.glob(f"*{UNFINISHED}"):
            age_s = self._clock() - path.lstat().st_mtime
            if age_s > ABANDONED_S or (path.name != f"{but}{UNFINISHED}" and age_s > 3600):
                path.unlink(missing_ok=True)


def _require_room(file: BinaryIO, missing: int) -> None:
    """Raises Refused before a file system is filled to its last byte: the spool may lie on it."""
    found = os.fstatvfs(file.fileno())
    free = found.f_bavail * found.f_frsize
    if missing + KEPT_FREE > free:
        raise Refused(
            413,
            f"image too large here: {missing / 1e6:.1f} MB to fetch, and {free / 1e6:.1f} MB of disk are free",
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _read(file):
            digest.update(piece)
    return digest.hexdigest()


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
