"""A table of results, as `results.csv` has it, read row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

LONGEST = 2**31 - 1  #: letters of a field


def rows(lines: Iterable[str]) -> Iterator[list[str]]:
    """The values of each row, the header's first; a value may be as long as it likes, and NUL stands as U+FFFD."""
    # Python's reader stops at 128 KiB of a value, and in some releases at a NUL; answers may have both.
    csv.field_size_limit(LONGEST)
    return csv.reader(line.replace("\0", "\ufffd") for line in lines)


def named_rows(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The same by the names in the header, which is none of them."""
    read = rows(lines)
    header = next(read, [])
    return (dict(zip(header, row, strict=False)) for row in read)
