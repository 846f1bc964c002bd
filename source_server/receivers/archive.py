"""Files in a tar or zip archive, one after the other, in constant memory. Nothing is ever laid down by its name."""

from __future__ import annotations

import itertools
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from source_server.domain.file_names import BadName, checked_name, matches
from source_server.domain.refusal import BadInput, TooLarge
from source_server.receivers.unpack import PIECE, Count, Unpacked

MOST_MEMBERS = 100_000  #: entries of an archive, folders too, whether they match or not
#: Bytes that it unfolds to, those of files that are passed over too, as they come.
MOST_UNPACKED = 20 * 1024**3
MOST_HEADER = 128 * 1024  #: bytes of a tar's header: a long name, or what an extended one says
LONGEST_WORD = 4096  #: bytes of one thing that an extended header says
MOST_WORDS = 100  #: that a tar says once for all files
MOST_DIRECTORY = 16 * 1024 * 1024  #: bytes of a zip's directory
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


class _Content:
    """A content whose bytes count for the whole archive; of a tar they are counted where it is unpacked."""

    def __init__(self, source: IO[bytes], count: Count | None) -> None:
        self._source, self._count = source, count

    def read(self, size: int = -1) -> bytes:
        with _sentences():  # broken off in the middle of a file
            piece = self._source.read(size)
        if self._count is not None:
            self._count.add(len(piece))
        return piece


class _Header(tarfile.TarInfo):
    """A header that is read as a whole must not be a gigabyte of packed zeros, nor a list of holes without end."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > MOST_HEADER:
            raise BadInput("The archive has a header that is larger than any name could be.")
        if self.issparse() or self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_holes()
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        stream: Any = archive.fileobj
        said = stream.read(self._block(self.size))[: self.size]  # type: ignore[attr-defined]
        archive.fileobj = _ReadAhead(archive, b"".join(_words(said)) + bytes(tarfile.BLOCKSIZE))  # type: ignore[assignment]
        return super()._proc_pax(archive)  # type: ignore[misc,no-any-return]

    def _refuse_holes(self, *_: object) -> None:
        raise BadInput("The archive has a file with holes: make it without --sparse.")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_holes


class _ReadAhead:
    """What is left of an extended header; once it has been read, the archive goes on where it was."""

    def __init__(self, archive: tarfile.TarFile, said: bytes) -> None:
        self._archive, self._stream, self._said = archive, archive.fileobj, said

    def read(self, size: int) -> bytes:
        self._archive.fileobj = self._stream
        return self._said


def _words(said: bytes) -> Iterator[bytes]:
    """The records `LENGTH NAME=VALUE` of an extended header that mean something here.

    Of others, and of long ones, tarfile's patterns may take the square of their length: a minute for a single header.
    """
    at = 0
    while at < len(said):
        length, blank, _ = said[at : at + 8].partition(b" ")
        record = said[at : at + int(length)] if blank and length.isdigit() else b""
        if not record.endswith(b"\n") or len(record) != int(length):
            raise BadInput("The archive has an extended header that cannot be read.")
        at += len(record)
        name = record[len(length) + 1 :].partition(b"=")[0]
        if name in (b"path", b"size", b"hdrcharset") or name.startswith(b"GNU.sparse."):
            if len(record) > LONGEST_WORD:
                raise BadInput("The archive has a name that is longer than any may be.")
            yield record


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
    seen, count = set[str](), Count(MOST_UNPACKED)
    with _sentences():
        for name, regular, content in _entries(kind, archive, count):
            path = _checked(name)
            if not matches(path, [pattern]):
                continue
            if not regular or content is None:
                raise BadInput(f"{path!r} in the archive is a link or no ordinary file.")
            if path in seen:
                raise BadInput(f"The archive has the file {path!r} twice.")
            seen.add(path)
            counted = count if kind == "zip" else None
            yield Member(path, _Content(content, counted))  # type: ignore[arg-type]


def _entries(kind: str, archive: IO[bytes], count: Count) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """(name, whether an ordinary file, content) of all entries but folders."""
    if kind == "zip":
        yield from _of_zip(archive)
        return
    unpacked = Unpacked(archive, count)
    with tarfile.open(fileobj=unpacked, mode="r|", bufsize=PIECE, tarinfo=_Header) as stream:  # type: ignore[call-overload]
        for number in itertools.count(1):
            if (item := stream.next()) is None:
                return
            _require_few(number)
            stream.members = []  # else it keeps them all
            if len(stream.pax_headers) > MOST_WORDS:
                raise BadInput(f"The archive says more than {MOST_WORDS} things of all its files together.")
            if item.size < 0:
                raise BadInput("The archive has a file of less than no bytes.")
            count.require(item.size)
            if not item.isdir():
                yield item.name, item.isreg(), stream.extractfile(item) if item.isreg() else None


def _of_zip(archive: IO[bytes]) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with zipfile.ZipFile(_Cautious(archive)) as opened:  # type: ignore[arg-type,unused-ignore]
        for number, entry in enumerate(opened.infolist(), 1):
            _require_few(number)
            if entry.is_dir():
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Of the others zipfile unpacks a piece whole, whatever its size.
                raise BadInput(
                    "The archive is packed in a way that is not taken: make a zip with deflate, or a tar."
                )
            with opened.open(entry) as content:
                yield entry.filename, (entry.external_attr >> 28) in (0, 0o10), content


def _require_few(number: int) -> None:
    if number > MOST_MEMBERS:
        raise TooLarge(f"The archive has more than {MOST_MEMBERS} entries.")


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
