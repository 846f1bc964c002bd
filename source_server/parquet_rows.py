"""A program: a Parquet file on standard input, its rows as JSON lines on standard output.

The server never reads such a file itself: the format is made for trusted files, a small one may unfold to any size, and
its reader is native code. Here it has a process of its own, with bounds, that holds a few rows at a time.

Exit 0: all rows are out. 65: the file is bad, and 69: this server cannot read Parquet; one sentence is on stderr.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

BAD_FILE, NOT_HERE = 65, 69
MEMORY = 2 * 1024**3  #: bytes of address space
ROWS = 256  #: rows that are decoded at once
BUFFER = 64 * 1024  #: bytes of a column that are read at once
MOST_ROWS = 10_000_000  #: of a file: some hundred bytes can say "the same row" a billion times
ROW_GROUP = 4 * 1024**3  #: bytes of a row group, unpacked, as the file itself says


class BadFile(Exception):
    """What is in the file cannot be rows; the message is one sentence."""


def main() -> int:
    """Read the file on descriptor 0; the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve more than there may be
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        sys.stderr.write("This server cannot read Parquet: its operator installs dockercomp[parquet].")
        return NOT_HERE
    try:
        with os.fdopen(0, "rb") as source, os.fdopen(1, "wb", 1024 * 1024) as out:
            for line in lines(source):
                out.write(line)
    except BrokenPipeError:
        os._exit(BAD_FILE)  # whoever asked has seen enough
    except BadFile as error:
        sys.stderr.write(str(error))
        return BAD_FILE
    except MemoryError:
        sys.stderr.write("The Parquet file needs too much memory: write it with smaller pages or rows.")
        return BAD_FILE
    return 0


def lines(source: BinaryIO) -> Iterator[bytes]:
    """Each row as a line of JSON; raises BadFile."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False, memory_map=False)
        _require_sound(file)
        row = 0
        for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
            for value in _readable(batch).to_pylist():
                row += 1
                if row > MOST_ROWS:  # whatever the file said of itself
                    raise BadFile(f"The Parquet file has more than {MOST_ROWS} rows.")
                yield _line(value, row)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        said = " ".join(str(error).split())[:300]
        raise BadFile(f"The file is not Parquet that can be read: {said.rstrip('.')}.") from error


def _require_sound(file: Any) -> None:
    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise BadFile("Two columns of the Parquet file have the same name.")
    if file.metadata.num_rows > MOST_ROWS:
        raise BadFile(f"The Parquet file has {file.metadata.num_rows} rows, more than {MOST_ROWS}.")
    for number in range(file.metadata.num_row_groups):
        if file.metadata.row_group(number).total_byte_size > ROW_GROUP:
            raise BadFile(f"Row group {number + 1} of the Parquet file is larger than {ROW_GROUP} bytes.")


def _readable(batch: Any) -> Any:
    """Nanoseconds are more than a moment of Python can hold: such columns become text."""
    import pyarrow

    for place, field in enumerate(batch.schema):
        if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            batch = batch.set_column(place, field.name, batch.column(place).cast(pyarrow.string()))
    return batch


def _line(value: dict[str, Any], row: int) -> bytes:
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise BadFile(f"Row {row} of the Parquet file: {error}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"a value of the type {type(value).__name__} has no place in JSON")


if __name__ == "__main__":
    sys.exit(main())
