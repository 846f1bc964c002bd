"""Packed bytes are unpacked piece by piece: however well they were packed, no piece is large, and each one counts."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import IO, Protocol

from source_server.domain.refusal import BadInput, TooLarge

PIECE = 64 * 1024  #: bytes that are read, or unpacked, at once
MOST_MEMORY = 128 * 1024 * 1024  #: bytes that xz may take; its strongest preset (-9) takes 65 MiB

_GZIP, _BZIP, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"


class Count:
    """How many bytes have been unpacked."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0

    def add(self, more: int) -> None:
        """So many more; raises TooLarge when they are too many."""
        self._bytes += more
        self.require(0)

    def require(self, more: int) -> None:
        """Raises TooLarge when so many more would be too many."""
        if self._bytes + more > self._most:
            raise TooLarge(f"The archive unfolds to more than {self._most} bytes.")


class _Unpacker(Protocol):
    """What bz2 and lzma have, and gzip by `_Gzip`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's, in the manner of the other two."""

    def __init__(self) -> None:
        self._one = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._one.eof

    @property
    def needs_input(self) -> bool:
        return not self._one.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._one.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._one.decompress(self._one.unconsumed_tail or data, max_length)


class Unpacked:
    """A stream that may be packed with gzip, bzip2 or xz, unpacked; all that is read of it is counted."""

    def __init__(self, packed: IO[bytes], count: Count) -> None:
        self._packed, self._count = packed, count
        self._ahead = b""
        while len(self._ahead) < len(_XZ) and (piece := packed.read(PIECE)):
            self._ahead += piece
        self._unpacker = _unpacker(self._ahead)
        self._plain = self._unpacker is None

    def read(self, size: int) -> bytes:
        """Up to so many bytes, some at least unless it has ended; raises BadInput or TooLarge."""
        size = max(1, min(size, PIECE))
        piece = self._next_plain(size) if self._plain else self._next(size)
        self._count.add(len(piece))
        return piece

    def _next_plain(self, size: int) -> bytes:
        if not self._ahead:
            return self._packed.read(size)
        piece, self._ahead = self._ahead[:size], self._ahead[size:]
        return piece

    def _next(self, size: int) -> bytes:
        while self._unpacker is not None:
            if self._unpacker.eof:
                self._begin_again(self._unpacker.unused_data)
                continue
            data = b""
            if self._unpacker.needs_input:
                data, self._ahead = self._ahead or self._packed.read(PIECE), b""
                if not data:
                    raise BadInput("The archive cannot be read: it breaks off.")
            try:
                piece = self._unpacker.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
                raise BadInput(f"The archive cannot be read: {str(error)[:200].rstrip('.')}.") from error
            if piece:
                return piece
        return b""

    def _begin_again(self, rest: bytes) -> None:
        """Several packed streams, one after the other, are one; there may be zeros between them."""
        self._count.add(PIECE)  # so that a million empty ones do not cost nothing
        rest = rest.lstrip(b"\0")
        while len(rest) < len(_XZ) and (piece := self._packed.read(PIECE)):
            self._count.add(len(piece))
            rest = (rest + piece).lstrip(b"\0")
        self._ahead, self._unpacker = rest, _unpacker(rest)


def _unpacker(beginning: bytes) -> _Unpacker | None:
    if beginning.startswith(_GZIP):
        return _Gzip()
    if beginning.startswith(_BZIP):
        return bz2.BZ2Decompressor()
    if beginning.startswith(_XZ):
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MOST_MEMORY)
    return None
