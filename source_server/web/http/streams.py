"""Large files as answers. Who reads too slowly is cut off, for a thread of ours waits for each reader."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import IO, cast

from flask import Response, request
from werkzeug.wsgi import FileWrapper

PIECE = 512 * 1024  #: bytes that are given to the connection in one go
PATIENCE_S = 30.0  #: for each piece: whoever takes less than 17 kB/s is cut off, and may go on with a Range


def streamed(
    content: IO[bytes],
    held: ExitStack,
    *,
    kind: str,
    length: int,
    etag: str,
    modified: datetime | None = None,
) -> Response:
    """The file as a stream; ranges and conditions are honoured. `held` is closed with the answer, not before."""
    answer = Response(FileWrapper(content, PIECE), mimetype=kind)
    answer.content_length = length
    answer.last_modified = modified
    answer.set_etag(etag)
    answer.make_conditional(request.environ, accept_ranges=True, complete_length=length)
    answer.response = _Paced(cast(Iterable[bytes], answer.response), request.environ.get("gunicorn.socket"))
    answer.call_on_close(held.pop_all().close)
    return answer


class _Paced:
    """The pieces of an answer, each of which the reader must take in time.

    gunicorn hands a piece to `sendall`, and a connection's timeout bounds `sendall` as a whole: neither a reader that
    stops nor one that takes a few bytes now and then gets more. (It sends a file that it is shown as such by other
    means, which are not bounded: therefore it is shown this.)
    """

    def __init__(self, source: Iterable[bytes], connection: socket.socket | None) -> None:
        self._source, self._pieces, self._connection = source, iter(source), connection
        self._under_way = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._under_way and self._connection is not None:
            self._connection.settimeout(PATIENCE_S)
        self._under_way = True
        try:
            return next(self._pieces)
        except StopIteration:
            self._under_way = False
            raise

    def close(self) -> None:
        """Let go of the file; of the connection too, if the answer broke off."""
        if self._under_way and self._connection is not None:
            # Or gunicorn would wait for a word of such a client, with the thread that accepts the others.
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
