"""The engine's stream of a process: stdout and stderr in turns, each piece with 8 bytes before it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEADER = struct.Struct(">BxxxI")
_NAMES = {1: "stdout", 2: "stderr"}


class BadStream(Exception):
    """This is not what the engine sends."""


class Demultiplexer:
    """Takes the stream apart as it comes; keeps nothing but half a header."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._name = ""
        self._left = 0  #: bytes of the current piece still to come

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """The pieces in `data`, each with the name of its stream; raises BadStream."""
        view = memoryview(data)
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                yield self._name, bytes(piece)
                continue
            needed = _HEADER.size - len(self._header)
            self._header += view[:needed]
            view = view[needed:]
            if len(self._header) == _HEADER.size:
                number, self._left = _HEADER.unpack(self._header)
                self._header.clear()
                if number not in _NAMES:
                    raise BadStream(f"The Docker engine sent a stream of kind {number}.")
                self._name = _NAMES[number]
