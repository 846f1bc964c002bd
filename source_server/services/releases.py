"""What volunteers install from: the releases that the operator copied here."""

from __future__ import annotations

from pathlib import Path

from source_server.domain.refusal import NotFound
from source_server.release.shelf import Release, Shelf

CURRENT = "current"


class Releases:
    """Finds releases and their files; writes nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

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
