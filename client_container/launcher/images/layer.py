"""One layer of an image's archive, read as a stream: bounded, hashed, and every tar header in it looked at.

A layer comes from strangers, and a few bytes can claim a lot: packed data that swells a thousand times, a sparse file
whose holes the engine writes out, a header that wants to be read into memory whole. None of that is believed here.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from client_container.launcher.errors import LauncherError

BLOCK = 512
PIECE = 2**20
MOST_EXTENSION = 2**20  #: bytes of one entry's extended header (its attributes are in there)
MOST_ENTRIES = 1_000_000  #: headers of an image
PAGE = 4096  #: bytes; whatever is in a layer takes at least so much on a disk

GZIP = b"\x1f\x8b"
#: What engines may pack layers with and this reader does not read.
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zX": "xz"}

_EXTENSIONS = b"xgLK"
#: Links, devices, folders: the engine takes no data for them, whatever size their header names. So must we, or we
#: would read other headers than it does.
_WITHOUT_DATA = b"123456"
#: Devices and named pipes. The engine opens /etc/passwd and /etc/group of an image, outside of any container: a pipe
#: there makes it wait for ever, and with it whoever asks it to remove an image; opening a device can do anything.
#: Base systems have devices in /dev, over which every container gets a /dev of its own; those may stay.
_NODES = b"346"


class BadArchive(LauncherError):
    """The archive is not what it has to be; the message is one sentence."""


class TooLarge(LauncherError):
    """Unpacked, it is larger than there is room for."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """One header of a tar."""

    name: bytes
    kind: bytes  #: the type flag; "0" for a regular file
    size: int  #: bytes of data that follow, without padding

    @property
    def padded(self) -> int:
        """Bytes that follow, with padding."""
        return -(-self.size // BLOCK) * BLOCK


def read_header(block: bytes) -> Header | None:
    """A header block; None for the block of zeros that ends a tar. Raises BadArchive."""
    if len(block) < BLOCK:
        raise BadArchive("The archive ends in the middle of a file.")
    if not any(block):
        return None
    if _number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise BadArchive("The archive has a header whose checksum is wrong.")
    name, prefix = block[:100].split(b"\0")[0], b""
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0")[0]
    kind = block[156:157].replace(b"\0", b"0")
    return Header(name=prefix + b"/" + name if prefix else name, kind=kind, size=_number(block[124:136]))


def _number(text: bytes) -> int:
    if text[0] & 0x80:  # a large number in binary
        value = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
        if text[0] & 0x40 or value > 2**62:
            raise BadArchive("The archive has a header with an impossible number.")
        return value
    digits = text.strip(b" \0").split(b"\0")[0]
    if not re.fullmatch(rb"[0-7]*", digits):
        raise BadArchive("The archive has a header with a number that is none.")
    return int(digits or b"0", 8)


@dataclass
class Plain:
    """The pieces of a layer's tar, unpacked, with size and hash so far. Raises TooLarge, BadArchive."""

    packed: Iterator[bytes]
    most: int  #: bytes that are read at most
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def __iter__(self) -> Iterator[bytes]:
        for piece in _inflated(self.packed):
            self.size += len(piece)
            if self.size > self.most:
                raise TooLarge("The layer is larger than there is room for.")
            self.digest.update(piece)
            yield piece

    @property
    def diff_id(self) -> str:
        """The hash by which the image's config names the layer."""
        return f"sha256:{self.digest.hexdigest()}"


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces unpacked, none of them larger than PIECE."""
    first = next(packed, b"")
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise BadArchive(f"A layer is packed with {name}, which is not read here.")
    if not first.startswith(GZIP):
        yield first
        yield from packed
        return
    engine = zlib.decompressobj(31)
    for piece in _chain(first, packed):
        data = piece
        while data:
            try:
                plain = engine.decompress(data, PIECE)
            except zlib.error as error:
                raise BadArchive("A layer cannot be unpacked: it is damaged.") from error
            if plain:
                yield plain
            data = engine.unconsumed_tail
            if engine.eof:  # another member may follow, as when files are put behind each other
                data, engine = engine.unused_data, zlib.decompressobj(31)
                if data and not data.startswith(GZIP[: len(data)]):
                    raise BadArchive("A layer has something behind its end.")


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a layer takes on a disk."""

    room: int  #: bytes, in whole pages; folders, links and empty files take one, too
    entries: int  #: headers


def look_through(
    plain: Plain, *, most_entries: int = MOST_ENTRIES, on_progress: Callable[[], None] = lambda: None
) -> Contents:
    """Read a layer to its end and look at every header in it; raises BadArchive, TooLarge.

    What a header claims is compared with what really follows; sparse files are refused, since the engine writes
    their holes out. The room that the layer takes is bounded by `plain.most`, as its length is.
    """
    source = _Source(iter(plain))
    wanted: int | None = None  # the size that an extended header gives the next entry
    renamed = everywhere = False  # whether one gives it, or all that follow, another name
    room = 0
    for entries in range(most_entries + 1):
        on_progress()
        block = source.read(BLOCK)
        header = read_header(block) if block else None
        if header is None:
            source.drain()
            return Contents(room=room, entries=entries)
        _require_harmless(header, renamed=renamed or everywhere)
        if header.kind in _EXTENSIONS:
            records = _extension(source, header)
            renamed = renamed or header.kind in b"LK" or b"path" in records
            everywhere = everywhere or (header.kind == b"g" and b"path" in records)
            if header.kind == b"x":
                wanted = None if b"size" not in records else _decimal(records[b"size"])
            continue
        size = 0 if header.kind in _WITHOUT_DATA else header.size if wanted is None else wanted
        wanted, renamed = None, False
        source.skip(-(-size // BLOCK) * BLOCK)
        room += max(PAGE, -(-size // PAGE) * PAGE)
        if room > plain.most:
            raise TooLarge("The layer takes more room than there is.")
    raise BadArchive(f"The image has more than {MOST_ENTRIES} files.")


def _require_harmless(header: Header, *, renamed: bool) -> None:
    if header.kind == b"S":
        raise BadArchive(_IS_SPARSE)
    if header.kind in _NODES and (renamed or not _in_dev(header.name)):
        raise BadArchive("A layer has a named pipe or a device in it, which the engine might open.")


def _in_dev(name: bytes) -> bool:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return parts[0] == b"dev" and b".." not in parts if parts else False


_IS_SPARSE = "A layer has a sparse file in it, which could be of any size."


def _extension(source: _Source, header: Header) -> dict[bytes, bytes]:
    """What an extended header says; of a long name, nothing."""
    if header.size > MOST_EXTENSION:
        raise BadArchive("A layer has a header that is larger than any that an engine writes.")
    text = source.read(header.padded)[: header.size]
    records = dict(_records(text)) if header.kind in b"xg" else {}
    if any(name.startswith(b"GNU.sparse.") for name in records):
        raise BadArchive(_IS_SPARSE)
    return records


def _records(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of an extended header: LENGTH NAME=VALUE, each with its own length before it."""
    while text:
        length, _, _ = text[:20].partition(b" ")
        size = _decimal(length)
        name, equals, value = text[len(length) + 1 : max(size - 1, 0)].partition(b"=")
        if not equals or text[size - 1 : size] != b"\n":
            raise BadArchive("A layer has an extended header that is none.")
        yield name, value
        text = text[size:]


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", digits):
        raise BadArchive("A layer has an extended header with a number that is none.")
    return int(digits)


class _Source:
    """Bytes from pieces; only one piece is in memory, and what is asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece, self._at = b"", 0  # the piece at hand, and how far it is read

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        found = b""
        while len(found) < size and self._more():
            taken = self._piece[self._at : self._at + size - len(found)]
            self._at += len(taken)
            found += taken
        return found

    def skip(self, size: int) -> None:
        """Pass over so many bytes; raises BadArchive when there are fewer."""
        while size > 0:
            if not self._more():
                raise BadArchive("A layer ends in the middle of a file.")
            step = min(size, len(self._piece) - self._at)
            self._at += step
            size -= step

    def drain(self) -> None:
        """Read on to the end, for length and hash: the engine reads nothing behind a tar's end."""
        while self._more():
            self._at = len(self._piece)

    def _more(self) -> bool:
        """Whether anything is left; then some of it is at hand."""
        while self._at >= len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece, self._at = piece, 0
        return True
