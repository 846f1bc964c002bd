"""Files in a tar or zip archive, one after the other, in constant memory. Nothing is ever laid down by its name."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from source_server.domain.file_names import BadName, checked_name, matches
from source_server.domain.refusal import BadInput, TooLarge

MOST_MEMBERS = 100_000  #: entries of an archive, whether they match or not
MOST_UNPACKED = 20 * 1024**3  #: bytes of its files together, counted as they come
MOST_HEADER = 1024 * 1024  #: bytes of a tar's headers
MOST_DIRECTORY = 16 * 1024 * 1024  #: bytes of a zip's directory
PACKED = 4096  #: bytes that are unpacked at once: at the worst some 80 MB
ENDINGS = {
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
    ".zip": "zip",
}


@dataclass(frozen=True)
class Member:
    """A file of an archive: its path there, and its content, to be read before the next one."""

    path: str
    content: IO[bytes]


class _Counted:
    """A content whose bytes count for the whole archive."""

    def __init__(self, source: IO[bytes], counted: list[int]) -> None:
        self._source, self._counted = source, counted

    def read(self, size: int = -1) -> bytes:
        with _sentences():  # broken off in the middle of a file
            piece = self._source.read(size)
        self._counted[0] += len(piece)
        if self._counted[0] > MOST_UNPACKED:
            raise TooLarge(f"The archive's files have together more than {MOST_UNPACKED} bytes.")
        return piece


class _Header(tarfile.TarInfo):
    """A header that is read as a whole must not be a gigabyte of packed zeros."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > MOST_HEADER:
            raise BadInput("The archive has a header that is larger than any name could be.")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class _Cautious:
    """A zip file whose directory, which is read as a whole, must not be of any size."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.seek, self.tell, self.seekable = source.seek, source.tell, source.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MOST_DIRECTORY:
            raise TooLarge(f"The archive's directory has more than {MOST_DIRECTORY} bytes.")
        return self._source.read(size)


def members(kind: str, archive: IO[bytes], pattern: str) -> Iterator[Member]:
    """The files whose path matches the pattern (`*` stops at a /, `**` does not), in the archive's order.

    Raises BadInput for an archive that is broken, or has a name that could mean another place, a link that matches, or
    a path twice; TooLarge for one that unfolds beyond bounds.
    """
    seen, counted = set[str](), [0]
    with _sentences():
        for number, (name, regular, content) in enumerate(_entries(kind, archive)):
            if number >= MOST_MEMBERS:
                raise TooLarge(f"The archive has more than {MOST_MEMBERS} entries.")
            path = _checked(name)
            if not matches(path, [pattern]):
                continue
            if not regular or content is None:
                raise BadInput(f"{path!r} in the archive is a link or no ordinary file.")
            if path in seen:
                raise BadInput(f"The archive has the file {path!r} twice.")
            seen.add(path)
            yield Member(path, _Counted(content, counted))  # type: ignore[arg-type]


def _entries(kind: str, archive: IO[bytes]) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """(name, whether an ordinary file, content) of all entries but folders."""
    if kind == "zip":
        with zipfile.ZipFile(_Cautious(archive)) as opened:  # type: ignore[arg-type,unused-ignore]
            for entry in opened.infolist():
                if not entry.is_dir():
                    with opened.open(entry) as content:
                        yield entry.filename, (entry.external_attr >> 28) in (0, 0o10), content
        return
    with tarfile.open(fileobj=archive, mode="r|*", bufsize=PACKED, tarinfo=_Header) as stream:
        while (item := stream.next()) is not None:
            stream.members = []  # type: ignore[attr-defined]  # else it keeps them all
            if not item.isdir():
                yield item.name, item.isreg(), stream.extractfile(item) if item.isreg() else None


def _checked(name: str) -> str:
    try:
        return checked_name(name.removeprefix("./"))
    except BadName as error:
        raise BadInput(f"In the archive: {error}.") from error


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise BadInput(f"The archive cannot be read: {said or type(error).__name__}.") from error
    except (OSError, ValueError) as error:  # of the decompressors
        raise BadInput(f"The archive cannot be read: {str(error)[:200].rstrip('.')}.") from error
