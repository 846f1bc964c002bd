"""Names of files that travel between a client and a job: relative, normalised, the same on every machine. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

DEEPEST = 16  #: parts of a name
LONGEST = 1024  #: bytes of a name
LONGEST_PART = 200  #: bytes; with room for a suffix below what file systems allow


class BadName(ValueError):
    """A name that no file here may have; one sentence."""


def checked_name(name: str) -> str:
    """The name itself, if it is a relative one in normal form; raises BadName."""
    parts = name.split("/")
    good = (
        name.isprintable()  # no line breaks, no escape sequences in somebody's terminal
        and "\\" not in name
        and len(parts) <= DEEPEST
        and len(name.encode("utf-8", "replace")) <= LONGEST
        and all(part not in ("", ".", "..") for part in parts)
        and all(len(part.encode("utf-8", "replace")) <= LONGEST_PART for part in parts)
        and unicodedata.is_normalized("NFC", name)
    )
    if not good:
        raise BadName(f"A file's name must be relative, normalised and printable, not {name[:100]!r}.")
    return name


def checked_names(names: Iterable[str]) -> list[str]:
    """The names themselves, if they can lie in one folder on any machine; raises BadName."""
    seen = NameSet()
    return [seen.add(name) for name in names]


class NameSet:
    """Names of one folder: no two that differ in case only, none that needs another one to be a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}

    def add(self, name: str) -> str:
        """The name itself, if it goes with those before; raises BadName."""
        checked_name(name)
        folded = name.casefold()
        parts = name.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        clash = (
            folded in self._files
            or folded in self._folders
            or any(folder.casefold() in self._files for folder in above)
            or any(self._folders.get(folder.casefold(), folder) != folder for folder in above)
        )
        if clash:
            raise BadName(f"Two files' names differ in case only, or one lies in the other: {name[:100]!r}.")
        self._files.add(folded)
        self._folders.update((folder.casefold(), folder) for folder in above)
        return name
