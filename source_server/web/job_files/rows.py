"""The rows of a job file as an upload: as they are, or each of them once for every entry of the matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

from source_server.domain.refusal import BadInput
from source_server.domain.table import MAX_LINE, Lines, csv_rows, jsonl_rows
from source_server.web.job_files.job_file import VARIANT, JobFile

JSONL, CSV = "application/jsonl", "text/csv"


def kind_of(file: JobFile) -> str:
    """The type of what `lines_of` gives."""
    plain_csv = file.data_file is not None and file.data_file.lower().endswith(".csv") and not file.in_every
    return CSV if plain_csv else JSONL


def lines_of(file: JobFile, data: IO[bytes] | None) -> Iterator[bytes]:
    """The lines; `data` is the content of `data_file`, where there is one. Raises BadInput naming its line."""
    if file.data_file is None or data is None:
        return (row.encode() + b"\n" for row in file.rows)
    lines = _lines(data)
    return _in_every(file, lines) if file.in_every else lines


def _lines(data: IO[bytes]) -> Iterator[bytes]:
    while line := data.readline(MAX_LINE + 1):
        yield line


def _in_every(file: JobFile, lines: Iterable[bytes]) -> Iterator[bytes]:
    reader = csv_rows if (file.data_file or "").lower().endswith(".csv") else jsonl_rows
    for row in reader(Lines(lines)):
        if VARIANT in row.names:
            raise BadInput(
                f"Line {row.line} of {file.data_file} has the field {VARIANT!r}, which names the entry of the matrix; "
                "rename it, or write 'run_in: one'."
            )
        rest = row.text.strip()[1:]  # the text stays as it came: numbers of any size pass unharmed
        for name in file.in_every:
            yield f'{{"{VARIANT}": "{name}"{", " if row.names else ""}{rest}\n'.encode(
                "utf-8", "surrogatepass"
            )
