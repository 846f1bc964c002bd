"""`GET /results.csv`: the table of results as a stream."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Blueprint, Response, request

from source_server.domain.account import Role
from source_server.domain.refusal import Conflict
from source_server.services.export import Cursor, ExportedChunk, cursor
from source_server.web.access import account_as, services
from source_server.web.wire import instant

blueprint = Blueprint("results", __name__)

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
    "run",
    "attempt",
    "started",
    "ended",
    "exit_code",
)
PIECE = 64 * 1024  #: bytes of a piece sent


@blueprint.get("/results.csv")
def results() -> Response:
    """One line an input row; `?task=` or `?project=` choose, `?after=TASK.N.ROW` goes on behind that line."""
    account = account_as(Role.SCIENTIST)
    tasks = services().tasks.chosen(account, request.args.get("task"), request.args.get("project"))
    after = cursor(request.args["after"]) if "after" in request.args else None
    fields = services().export.fields(tasks)
    layout = _layout(columns(fields))
    if request.args.get("columns", layout) != layout:
        raise Conflict(
            "The columns have changed since that export began (another task has data now): begin anew."
        )
    chunks = services().export.chunks(tasks, after)
    return Response(
        _pieces(fields, chunks, after), mimetype="text/csv", headers={"Dockercomp-Columns": layout}
    )


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


def _layout(names: Sequence[str]) -> str:
    """A short name of these columns: `?columns=` of a call that goes on with `?after=` asks for the same ones."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _pieces(fields: Sequence[str], chunks: Iterator[ExportedChunk], after: Cursor | None) -> Iterator[bytes]:
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
        known.run,
        known.attempt,
        instant(known.started),
        instant(known.ended),
        known.exit_code,
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
