"""Collecting /out: only once nobody can write there any more, and only plain files with plain names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from client_container.launcher.errors import LauncherError
from client_container.launcher.files.folders import NoPlainFile, open_plain_file, opened
from client_container.launcher.line.events import OutFile
from client_container.launcher.line.names import DEEPEST, BadName, NameSet
from client_container.launcher.line.patterns import fits

MOST_FILES = 1000
MOST_LOOKED_AT = 20_000  #: entries
PROGRESS = ".progress"  #: in /out; how far the program is, from 0 to 1, and no result
_NAMED = 3  #: of what was left out, these many are named

#: Takes an open file and the most bytes it may have; answers hex sha256 and size.
Store = Callable[[int, int], tuple[str, int]]


@dataclass
class Collection:
    """What became of /out."""

    files: list[OutFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  #: each with its reason

    @property
    def note(self) -> str:
        """A sentence about what was left out; empty when nothing was."""
        if not self.left_out:
            return ""
        more = len(self.left_out) - _NAMED
        named = "; ".join(self.left_out[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        return f"Left out of /out: {named}."


def collect(
    folder: int, store: Store, *, most_bytes: int, patterns: Sequence[str] | None = None
) -> Collection:
    """Store every plain file below the open `folder`; what is none, or too much, is left out and named.

    `patterns`: only what fits one of them is looked at (None: all). Raises OSError when the files cannot be stored.
    """
    found, names, room = Collection(), NameSet(), most_bytes
    for name, within in _files(folder, found):
        if patterns is not None and not fits(name, patterns):
            continue
        try:
            names.add(name)
            if len(found.files) >= MOST_FILES:
                raise BadName(f"there are more than {MOST_FILES} files")
            descriptor = open_plain_file(name.rsplit("/", 1)[-1], within=within)
        except BadName:
            found.left_out.append(f"{_shown(name)} (its name, or one too many)")
            continue
        except NoPlainFile:
            found.left_out.append(f"{_shown(name)} (not a regular file with one link)")
            continue
        try:
            sha256, size = store(descriptor, room)
        except LauncherError:
            found.left_out.append(f"{_shown(name)} (too big)")
            continue
        finally:
            os.close(descriptor)
        room -= size
        found.files.append(OutFile(name=name, sha256=sha256, bytes=size))
    return found


def _files(folder: int, found: Collection) -> Iterator[tuple[str, int]]:
    """Name and open folder of everything but folders, in order; each is to be used at once."""
    seen = 0

    def below(folder: int, prefix: str, level: int) -> Iterator[tuple[str, int]]:
        nonlocal seen
        os.lseek(folder, 0, os.SEEK_SET)
        for entry in sorted(os.listdir(folder)):
            seen += 1
            if seen > MOST_LOOKED_AT:
                return
            name = prefix + entry
            if name == PROGRESS:
                continue
            if not stat.S_ISDIR(os.lstat(entry, dir_fd=folder).st_mode):
                yield name, folder
            elif level >= DEEPEST:
                found.left_out.append(f"{_shown(name)} (too deep)")
            else:
                with opened(entry, within=folder) as inner:
                    yield from below(inner, name + "/", level + 1)

    yield from below(folder, "", 1)
    if seen > MOST_LOOKED_AT:
        found.left_out.append("all after the first 20,000 entries")


def _shown(name: str) -> str:
    """A hostile name, short and on one line."""
    return ascii(name)[1:-1][:80]
