"""The tree of a commit: what may be in it, and the one tar that it always becomes."""

from __future__ import annotations

import io
import re
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from source_server.domain.refusal import BadInput

LONGEST_PATH = 1000  #: letters
LONGEST_NAME = 255  #: bytes
LONGEST_TARGET = 1000  #: bytes of what a link points to

_ENTRY = re.compile(
    rb"([0-7]{6}) (blob|tree|commit) ([0-9a-f]{40}(?:[0-9a-f]{24})?) +([0-9]+|-)\t(.+)", re.DOTALL
)
_LINK, _MODULE, _PROGRAM = "120000", "160000", "100755"
_FILES = ("100644", _PROGRAM, "100664")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the tree."""

    path: str
    mode: str
    object: str
    size: int

    @property
    def is_file(self) -> bool:
        """Whether it is an ordinary file."""
        return self.mode in _FILES

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode == _LINK


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large a tree may be."""

    files: int
    bytes: int


def read_entries(listed: Iterable[bytes], bounds: Bounds) -> list[Entry]:
    """The entries of `git ls-tree -r -t -z --long`, folders left out, sorted; raises BadInput on what may not be."""
    found: list[Entry] = []
    folded: dict[str, str] = {}
    total = 0
    for count, raw in enumerate(listed):
        if count == bounds.files:
            raise BadInput(f"The tree has more than {bounds.files} files and folders.")
        entry = _entry(raw)
        _require_sound(entry)
        twin = folded.setdefault(unicodedata.normalize("NFC", entry.path).casefold(), entry.path)
        if twin != entry.path:
            raise BadInput(
                f"The tree has {twin!r} and {entry.path!r}, which are one file where case does not count."
            )
        total += entry.size
        if total > bounds.bytes:
            raise BadInput(f"The files of the tree have more than {bounds.bytes} bytes together.")
        if not entry.mode.startswith("04"):
            found.append(entry)
    return sorted(found, key=lambda one: one.path.encode())


def records(stream: IO[bytes]) -> Iterator[bytes]:
    """The records of a stream, each of which ends in NUL; raises BadInput for one without an end."""
    held = b""
    while piece := stream.read(64 * 1024):
        *whole, held = (held + piece).split(b"\0")
        yield from whole
        if len(held) > 16 * LONGEST_PATH:
            raise BadInput("A path of the tree is too long.")
    if held:
        raise BadInput("The list of the tree broke off.")


def require_inside(entry: Entry, target: str) -> None:
    """A link must stay in the tree, whatever other links it leads through: so it may go up only at its beginning."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if target.startswith("/") or not target or ".." in parts[up:] or up > entry.path.count("/"):
        raise BadInput(f"The link {entry.path!r} points to {target!r}, out of the tree.")


def write_tar(
    out: IO[bytes], entries: Sequence[tuple[Entry, IO[bytes]]] | Iterable[tuple[Entry, IO[bytes]]]
) -> None:
    """One tar of these entries with their content: the same entries give the same bytes, at any time and anywhere."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for entry, content in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode = 0o755 if entry.mode in (_PROGRAM, _MODULE) else 0o644
            if entry.mode == _MODULE:
                info.type = tarfile.DIRTYPE  # what git itself leaves of a submodule that is not fetched
                archive.addfile(info)
            elif entry.is_link:
                info.type, info.linkname = tarfile.SYMTYPE, _target(entry, content.read())
                archive.addfile(info)
            else:
                info.size = entry.size
                archive.addfile(info, content)


def _target(entry: Entry, raw: bytes) -> str:
    try:
        target = raw.decode()
    except UnicodeDecodeError:
        raise BadInput(f"The link {entry.path!r} points to a name that is not UTF-8.") from None
    if not target.isprintable():
        raise BadInput(f"The link {entry.path!r} points to a name with a letter that cannot be shown.")
    require_inside(entry, target)
    return target


def empty() -> IO[bytes]:
    """The content of what has none."""
    return io.BytesIO()


def _entry(raw: bytes) -> Entry:
    found = _ENTRY.fullmatch(raw)
    if found is None:
        raise BadInput("The tree has an entry that this server does not understand.")
    mode, _, name, size, path = found.groups()
    try:
        return Entry(
            path=path.decode(),
            mode=mode.decode(),
            object=name.decode(),
            size=0 if size == b"-" else int(size),
        )
    except UnicodeDecodeError:
        raise BadInput(f"The tree has a name that is not UTF-8: {path!r}.") from None


def _require_sound(entry: Entry) -> None:
    parts = entry.path.split("/")
    if entry.mode not in ("040000", _LINK, _MODULE, *_FILES):
        raise BadInput(f"{entry.path!r} is of a kind ({entry.mode}) that this server does not understand.")
    if len(entry.path) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise BadInput(f"The path {entry.path[:100]!r}... is too long.")
    if not entry.path.isprintable():
        raise BadInput(f"The name {entry.path!r} has a letter that cannot be shown.")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise BadInput(f"The tree has the path {entry.path!r}, which no file may have.")
    if entry.is_link and entry.size > LONGEST_TARGET:
        raise BadInput(f"The link {entry.path!r} points to a name that is too long.")
