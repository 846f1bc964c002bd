"""Parquet uploads: laid down on disk, as the format begins at its end, and read by a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from source_server.domain.refusal import BadInput, TooLarge, Unavailable
from source_server.domain.table import MAX_LINE, Lines, Row, jsonl_rows

PROGRAM = (sys.executable, "-m", "source_server.parquet_rows")
MAX_FILE = 20 * 1024**3  #: bytes of a file, which lies in the folder for temporary files meanwhile
NOT_HERE = 69  #: the program's exit status where the library is missing
MAX_SENTENCE = 500
MAX_ROWS = 1024**3  #: bytes that the rows of any file may come to as JSON lines, and
UNFOLDED = 100  #: times its own size: a thousand bytes of Parquet can say ten million rows of any length


def parquet_rows(upload: Lines) -> Iterator[Row]:
    """The rows of a Parquet file, whose bytes are in `upload`, in pieces of any size. Raises BadInput."""
    with tempfile.TemporaryFile() as file:
        size = 0
        for piece in upload.raw:
            size += len(piece)
            if size > MAX_FILE:
                raise TooLarge(f"A Parquet file has at most {MAX_FILE} bytes here.")
            file.write(piece)
        file.seek(0)
        most = max(MAX_ROWS, UNFOLDED * size)
        yield from jsonl_rows(Lines(_json_lines(file, most)))


def _json_lines(file: IO[bytes], most: int) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            PROGRAM, stdin=file, stdout=subprocess.PIPE, stderr=said, env=_surroundings()
        )
        assert process.stdout is not None
        try:
            yield from _each(process.stdout, most)
            status = process.wait()
        finally:
            # Also when nobody wants more of it: a row was refused.
            process.stdout.close()
            process.kill()
            process.wait()
        said.seek(0)
        _require_success(status, said.read(MAX_SENTENCE).decode("utf-8", "replace"))


def _surroundings() -> dict[str, str]:
    """What the reader's process is told: nothing of the server's settings, which may hold the database's password."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKERCOMP_")}


def _each(out: IO[bytes], most: int) -> Iterable[bytes]:
    left = most
    while line := out.readline(MAX_LINE + 1):
        left -= len(line)
        if left < 0:
            raise TooLarge(
                f"The rows of the Parquet file come to more than {most} bytes: send several files."
            )
        yield line


def _require_success(status: int, sentence: str) -> None:
    if status == NOT_HERE:
        raise Unavailable(sentence)
    if status < 0:
        raise BadInput(f"The Parquet file cannot be read: its reader was ended by signal {-status}.")
    if status != 0:
        lines = sentence.strip().splitlines()
        raise BadInput(lines[-1] if lines else "The Parquet file cannot be read.")
