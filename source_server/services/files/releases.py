"""What volunteers install from: the releases that the operator copied here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from source_server.domain.refusal import NotFound
from source_server.release.shelf import Release, Shelf
from source_server.services.files.places import Places

CURRENT = "current"
LARGE = 2**20  #: bytes above which a file is read by few at once
#: Of large files at once in one process: strangers, so they take no places of those who read images.
MOST_READERS = 4


class Releases:
    """Finds releases and their files; writes nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._readers = Places(MOST_READERS)

    def get(self, version: str = CURRENT) -> Release:
        """The release of this version, or the highest one; raises NotFound."""
        shelf = None if self._folder is None else Shelf(self._folder)
        if shelf is None or (version == CURRENT and shelf.current() is None):
            raise NotFound(
                "This server has no release to install from yet: its operator makes one with `dockercomp-server "
                "release make` and copies it into the folder of releases."
            )
        found = shelf.current() if version == CURRENT else shelf.find(version)
        if found is None:
            raise NotFound("There is no release of that version here.")
        return found

    def file(self, version: str, name: str) -> Path:
        """The path of one file of a release; only what the release itself lists. Raises NotFound."""
        release = self.get(version)
        if name not in release.files:
            raise NotFound(f"The release {release.version} has no such file.")
        return release.folder / name

    @contextmanager
    def reading(self, version: str, name: str) -> Iterator[BinaryIO]:
        """One file of a release to read; raises NotFound, and Unavailable while too many read large ones."""
        with ExitStack() as held:
            file = held.enter_context(self.file(version, name).open("rb"))
            if os.fstat(file.fileno()).st_size > LARGE:
                held.enter_context(self._readers.place())
            yield file
