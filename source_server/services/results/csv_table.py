"""The table of results as CSV, in pieces: what `GET /results.csv` sends, and reactions get as a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from source_server.domain.timing import instant
from source_server.services.results.export import Cursor, ExportedChunk

PLACE = ("task", "n", "row")  #: the first columns, and the cursor of a line
OUTCOME = (
    "answer",
    "state",
    "verdict",
    "account",
    "host",
    "container",
    "runtime",
    "self_test",
    "image",
    "variant",
    "files",
    "run",
    "attempt",
    "started",
    "ended",
    "exit_code",
)
PIECE = 64 * 1024  #: bytes of a piece sent


def columns(fields: Sequence[str]) -> list[str]:
    """The header: an input field that has the name of one of our columns gets `input.` before it."""
    taken = {*PLACE, *OUTCOME, *fields}
    named = []
    for name in fields:
        shown = name
        if name in (*PLACE, *OUTCOME):
            while shown in taken:
                shown = f"input.{shown}"
            taken.add(shown)
        named.append(shown)
    return [*PLACE, *named, *OUTCOME]


def pieces(fields: Sequence[str], chunks: Iterator[ExportedChunk], after: Cursor | None) -> Iterator[bytes]:
    """The table as CSV in UTF-8, some 64 KiB at a time; the header only when it begins at the beginning."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if after is None:
        writer.writerow(columns(fields))
    for chunk in chunks:
        writer.writerows(_lines(chunk, fields, after))
        if buffer.tell() >= PIECE:
            yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    piece = buffer.getvalue().encode("utf-8", "backslashreplace")
    buffer.seek(0)
    buffer.truncate()
    return piece


def _lines(chunk: ExportedChunk, fields: Sequence[str], after: Cursor | None) -> Iterator[list[Any]]:
    skipped = after.row if after and (after.task, after.n) == (chunk.task, chunk.n) else -1
    origin = _origin(chunk)
    for index, row in enumerate(chunk.rows):
        number = chunk.first_row + index
        if number > skipped:
            answer = "" if chunk.answers is None else chunk.answers[index]
            values = [_text(row.get(name, "")) for name in fields]
            yield [chunk.task, chunk.n, number, *values, answer, *origin]


def _origin(chunk: ExportedChunk) -> list[Any]:
    known = chunk.provenance
    return [
        chunk.state,
        known.verdict,
        known.account,
        known.host,
        known.container,
        known.runtime,
        known.self_test,
        known.image,
        known.variant,
        json.dumps([one["name"] for one in known.files]) if known.files else None,
        known.run,
        known.attempt,
        instant(known.started),
        instant(known.ended),
        known.exit_code,
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
