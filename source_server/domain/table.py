"""Rows of data become chunk inputs: JSON text, cut into chunks of so many rows, each within its limit.

The text of a row is kept as it came wherever it came as JSON: numbers of any size, NUL and lone surrogates pass
through unharmed, because nothing decodes and encodes them again.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from source_server.domain.refusal import BadInput

MAX_INPUT = 64 * 1024  #: bytes of a chunk's input that lies in the chunk itself; a larger one is a blob
#: Bytes of any chunk's input; what is larger is for files (a job's `inputs`).
MAX_LARGE_INPUT = 2 * 1024 * 1024
MAX_LINE = 1024 * 1024  #: bytes of a line of an upload
MAX_FIELDS = 1000  #: field names of a task
MAX_NAMES = 1024 * 1024  #: bytes of all its field names
SHOWN_NAMES = 8  #: of the fields that a row has, in a sentence

csv.field_size_limit(MAX_LINE)  # of the process: a value may be as long as a line, and a line is bounded here


@dataclass(frozen=True)
class Row:
    """One row: the line it began on (from 1), its field names and its JSON text."""

    line: int
    names: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Cut:
    """The input of one chunk: its number, JSON text, and which rows it holds (None: it is one value)."""

    n: int
    text: str
    rows: int | None
    first_row: int
    line: int = 0  #: the line of the upload that its first row began on, where there was one


@dataclass
class Lines:
    """Decodes an upload line by line and knows where it is, for sentences that name the line."""

    raw: Iterable[bytes]
    number: int = field(default=0)

    def __iter__(self) -> Iterator[str]:
        for line in self.raw:
            self.number += 1
            if len(line) > MAX_LINE:
                raise BadInput(f"Line {self.number} is longer than {MAX_LINE} bytes.")
            try:
                text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"Line {self.number} is not UTF-8 (byte {error.start + 1} of the line)."
                ) from error
            yield text


def csv_rows(lines: Lines) -> Iterator[Row]:
    """The rows of a CSV with a header line; values stay strings. Raises BadInput naming the line."""
    record = _Record()
    reader = csv.reader(record.lines(lines), strict=True)
    header: tuple[str, ...] | None = None
    while True:
        begins, record.size = lines.number + 1, 0
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise BadInput(f"Line {begins}: {_said(error)}.") from error
        if values is None:
            return
        if not values:
            continue  # an empty line
        if header is None:
            header = _header(values)
        elif len(values) != len(header):
            raise BadInput(f"Line {begins} has {len(values)} values for {len(header)} columns.")
        else:
            yield Row(begins, header, json.dumps(dict(zip(header, values, strict=True)), ensure_ascii=False))


def jsonl_rows(lines: Lines) -> Iterator[Row]:
    """The rows of a JSONL upload, one object a line. Raises BadInput naming the line."""
    for text in lines:
        stripped = text.strip()
        if not stripped:
            continue
        try:
            value = json.loads(stripped, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"Line {lines.number} is not JSON: {error}.") from error
        if not isinstance(value, dict):
            raise BadInput(f"Line {lines.number} is not a JSON object {{field: value}}.")
        if not value:
            raise BadInput(f"Line {lines.number} has no fields.")
        if any("\ud800" <= letter <= "\udfff" for letter in "".join(value)):
            raise BadInput(f"Line {lines.number} has a field name with a lone surrogate.")
        yield Row(lines.number, tuple(value), stripped)


_AROUND = len('{"rows": [], "first_row": }') + 12  #: bytes of a chunk's input around its rows


def cut(
    rows: Iterable[Row], *, rows_per_chunk: int, needed: set[str], bytes_per_chunk: int | None = None
) -> Iterator[Cut]:
    """Cut rows into chunks of so many rows; with `bytes_per_chunk` of fewer, as many as fit, but at least one.

    `needed` are the fields that the action's placeholders ask for.
    """
    n = first = size = weighed = 0
    held: list[Row] = []
    for row in rows:
        lacking = sorted(needed - set(row.names))
        if lacking:
            raise BadInput(
                f"Line {row.line} has no field {lacking[0]!r}, which the action or an input asks for: it has "
                f"{_named(row.names)} (braces that mean themselves are written {{{{ and }}}})."
            )
        if bytes_per_chunk is not None:
            weight = len(row.text.encode("utf-8", "surrogatepass")) + len(", ")
            if held and weighed + weight > bytes_per_chunk - _AROUND:
                yield _cut(n, held, first, rows_per_chunk)
                n, first, held, size, weighed = n + 1, first + len(held), [], 0, 0
            weighed += weight
        held.append(row)
        size += len(row.text)
        if size > MAX_LARGE_INPUT or len(held) == rows_per_chunk:
            yield _cut(n, held, first, rows_per_chunk)
            n, first, held, size, weighed = n + 1, first + len(held), [], 0, 0
    if held:
        yield _cut(n, held, first, rows_per_chunk)


def rows_of(text: str, rows: int | None) -> list[dict[str, Any]]:
    """The rows of a chunk's input, decoded, for an export."""
    value = json.loads(text)
    return [value] if rows is None else list(value["rows"])


def _cut(n: int, held: list[Row], first: int, rows_per_chunk: int) -> Cut:
    if rows_per_chunk == 1:
        text, rows = held[0].text, None
    else:
        joined = ", ".join(row.text for row in held)
        text, rows = f'{{"rows": [{joined}], "first_row": {first}}}', len(held)
    size = len(text.encode("utf-8"))
    if size > MAX_LARGE_INPUT:
        raise BadInput(
            f"The chunk from line {held[0].line} on has {size} bytes, more than {MAX_LARGE_INPUT}: use fewer "
            "rows_per_chunk, or files (the job's inputs) for what is so large."
        )
    return Cut(n, text, rows, first, held[0].line)


def _said(error: csv.Error) -> str:
    if str(error) == "unexpected end of data":
        return "a quote opens there, and nothing closes it"
    return str(error)


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:SHOWN_NAMES])
    return f"{shown} and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else shown


def _header(values: list[str]) -> tuple[str, ...]:
    if len(values) > MAX_FIELDS:
        raise BadInput(f"The header names {len(values)} columns, more than {MAX_FIELDS}.")
    if not all(values):
        raise BadInput("The header line has a column without a name.")
    if len(set(values)) != len(values):
        twice = next(name for name in values if values.count(name) > 1)
        raise BadInput(f"The header line names the column {twice!r} twice.")
    return tuple(values)


@dataclass
class _Record:
    """Watches the record that the reader puts together: quotes may spread it over any number of lines."""

    size: int = 0

    def lines(self, lines: Lines) -> Iterator[str]:
        for text in _without_nul(lines):
            self.size += len(text)
            if self.size > MAX_LINE:
                raise BadInput(
                    f"Line {lines.number}: a row spread over many lines is longer than {MAX_LINE} bytes."
                )
            yield text


def _without_nul(lines: Lines) -> Iterator[str]:
    for text in lines:
        if "\0" in text:
            raise BadInput(f"Line {lines.number} has a NUL byte, which a CSV cannot carry; use JSONL.")
        yield text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is beyond the range of a number")
    return value
