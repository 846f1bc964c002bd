"""Names of files below a job's /in and /out: relative, normalised, the same on every machine."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from source_server.domain.patterns import fits

DEEPEST = 16  #: parts of a name
LONGEST = 1024  #: bytes of a name
LONGEST_PART = 200  #: bytes of one of its parts
TAKEN = "chunk.json"  #: below /in: the chunk's own input


class BadName(ValueError):
    """A name that no file may have; one sentence, without its full stop."""


def checked_name(name: str) -> str:
    """The name itself, if it is a relative one in normal form; raises BadName."""
    parts = name.split("/")
    good = (
        name.isprintable()  # no NUL, no line breaks, no escape sequences, no lone surrogates
        and "\\" not in name
        and len(parts) <= DEEPEST
        and len(name.encode("utf-8", "replace")) <= LONGEST
        and all(part not in ("", ".", "..") for part in parts)
        and all(len(part.encode("utf-8", "replace")) <= LONGEST_PART for part in parts)
        and unicodedata.is_normalized("NFC", name)
    )
    if not good:
        raise BadName(f"a file's name is relative, normalised and printable, not {name[:100]!r}")
    return name


def require_together(names: Iterable[str], *, taken: Sequence[str] = ()) -> None:
    """Raises BadName unless files of these names can lie in one folder, on any machine, beside those `taken`."""
    files, folders = {one.casefold() for one in taken}, dict[str, str]()
    for name in names:
        parts = checked_name(name).split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        folded = name.casefold()
        clash = (
            folded in files
            or folded in folders
            or any(folder.casefold() in files for folder in above)
            or any(folders.get(folder.casefold(), folder) != folder for folder in above)
        )
        if clash:
            raise BadName(
                f"two files' names differ in case only, or one lies in the other, or it is {TAKEN}: {name[:100]!r}"
            )
        files.add(folded)
        folders.update((folder.casefold(), folder) for folder in above)


def could_match(pattern: str) -> bool:
    """Whether any file of such a name fits the pattern; `/out/*.png` fits none, for names are relative."""
    return "\\" not in pattern and all(part not in ("", ".", "..") for part in pattern.split("/"))


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names this file, as a job's `outputs` do."""
    return fits(name, patterns)
