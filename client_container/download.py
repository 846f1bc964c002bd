"""Brings files from the server: in pieces that may break off, checked before they get their name."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from client_container.blob import Blob
from client_container.failures import BadAnswer, Refused, ServerUnavailable

log = logging.getLogger(__name__)

UNFINISHED = ".part"
PIECE = 2**20
KEPT_FREE = 16 * 2**20  #: bytes
TRIES = 5  #: in a row that bring nothing
PAUSE_S = 2.0  #: after the first of them; twice as long after each further one
ABANDONED_S = 24 * 3600.0  #: what was begun so long ago is not gone on with
LOOK_S = 0.5  #: between two looks, while pausing, whether to go on at all

#: Asks for what comes from a byte on; answers as ServerConnection.image does.
Source = Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]


class Download:
    """Downloads into one folder. A file lies there under its sha256 once it is whole, and under no other name."""

    def __init__(
        self,
        folder: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._sleep, self._clock = folder, sleep, clock

    def __call__(
        self,
        wanted: Blob,
        source: Source,
        *,
        what: str = "file",
        going_on: Callable[[], object] = lambda: None,
    ) -> Path:
        """Fetch a file, going on where an earlier call broke off; answers where it lies.

        `going_on` is called between any two pieces, and ends the call with what it raises. Raises ServerUnavailable,
        LifeEnded, Refused (also when there is no room for it), OSError.
        """
        whole = self._folder / wanted.sha256
        if whole.exists() and sha256_of(whole) == wanted.sha256:
            return whole
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep(but=wanted.sha256)
        partial = self._folder / f"{wanted.sha256}{UNFINISHED}"
        self._complete(partial, wanted, _Line(source, what, going_on))
        partial.replace(whole)
        return whole

    def _complete(self, partial: Path, wanted: Blob, line: _Line) -> None:
        """Fetch what is missing, anew once if it turns out to be wrong; raises BadAnswer if it is wrong again."""
        for last in (False, True):
            self._fetch(partial, wanted, line)
            if sha256_of(partial) == wanted.sha256:
                return
            partial.unlink()
            if last:
                raise BadAnswer(f"The {line.what} has another content than the server said.")

    def _fetch(self, partial: Path, wanted: Blob, line: _Line) -> None:
        tries, pause_s = 0, PAUSE_S
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            while (have := file.seek(0, os.SEEK_END)) < wanted.bytes:
                _require_room(file, wanted.bytes - have, line.what)
                try:
                    line.go_on(file, have, wanted)
                except ServerUnavailable as error:
                    tries = 1 if file.seek(0, os.SEEK_END) > have else tries + 1
                    if tries >= TRIES:
                        raise
                    self._pause(max(pause_s * 2 ** (tries - 1), error.retry_after or 0.0), line)
            file.truncate(wanted.bytes)

    def _pause(self, seconds: float, line: _Line) -> None:
        while seconds > 0:
            line.going_on()
            self._sleep(min(LOOK_S, seconds))
            seconds -= LOOK_S

    def _sweep(self, *, but: str) -> None:
        """Remove what was begun long ago, and what another file left behind."""
        for path in self._folder.glob(f"*{UNFINISHED}"):
            try:
                age_s = self._clock() - path.lstat().st_mtime
            except FileNotFoundError:  # whole by now
                continue
            if age_s > ABANDONED_S or (path.name != f"{but}{UNFINISHED}" and age_s > 3600):
                path.unlink(missing_ok=True)


class _Line:
    """Where one file comes from."""

    def __init__(self, source: Source, what: str, going_on: Callable[[], object]) -> None:
        self._source, self.what, self.going_on = source, what, going_on

    def go_on(self, file: BinaryIO, start: int, wanted: Blob) -> None:
        """Fetch from a byte on, to the end or until it breaks off."""
        with self._source(start) as (begins, pieces):
            if begins > start:
                raise BadAnswer(f"The server sends another part of the {self.what} than was asked for.")
            file.seek(begins)
            file.truncate()
            left = wanted.bytes - begins
            for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise BadAnswer(f"The {self.what} is longer than the server said.")
                file.write(piece)
                self.going_on()


def _require_room(file: BinaryIO, missing: int, what: str) -> None:
    """Raises Refused before a file system is filled to its last byte: the spool may lie on it."""
    found = os.fstatvfs(file.fileno())
    free = found.f_bavail * found.f_frsize
    if missing + KEPT_FREE > free:
        raise Refused(
            413,
            f"{what} too large here: {missing / 1e6:.1f} MB to fetch, and {free / 1e6:.1f} MB of disk are free",
        )


def sha256_of(path: Path) -> str:
    """The hash of a file, in hex; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
