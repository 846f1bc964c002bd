"""Add pairs of numbers exactly: fields a and b of each row, one sum a line.

Reads one chunk as JSON on stdin: a row {"a": "1", "b": "2"}, or many {"rows": [row, ...], "first_row": n}.
Whole numbers of any size and decimals are added exactly. A row that is not two numbers is bad data: exit 65.
"""

from __future__ import annotations

import decimal
import json
import re
import sys
from decimal import Decimal

BAD_DATA = 65  #: the exit code that says: trying again elsewhere will not help
WHOLE = re.compile(r"[+-]?[0-9]{1,4000}", re.ASCII)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
# An inexact sum is refused, never rounded.
EXACT = decimal.Context(prec=10_000, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


class BadRow(Exception):
    """A row that is not two numbers; the message is one sentence."""


def add(row: object) -> str:
    """The sum of fields a and b of `row`, as text; raises BadRow."""
    if not isinstance(row, dict) or not {"a", "b"} <= row.keys():
        raise BadRow("wants the fields a and b")
    a, b = number(row["a"]), number(row["b"])
    if isinstance(a, int) and isinstance(b, int):
        return str(a + b)
    try:
        return str(EXACT.add(Decimal(a), Decimal(b)))
    except decimal.DecimalException:
        raise BadRow("the sum has more than 10,000 digits") from None


def number(value: object) -> int | Decimal:
    """The exact number that `value` (text, or a JSON number) stands for; raises BadRow."""
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)) or len(text) > 4_001:
        raise BadRow(f"{text[:40]!r} is not a number")
    if WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return Decimal(text)
    raise BadRow(f"{text[:40]!r} is not a number")


def rows_of(chunk: object) -> tuple[list[object], int]:
    """The rows of a chunk and the number of the first one; raises BadRow."""
    if not isinstance(chunk, dict) or "rows" not in chunk:
        return [chunk], 0
    rows, first = chunk["rows"], chunk.get("first_row", 0)
    if not isinstance(rows, list) or not isinstance(first, int):
        raise BadRow("wants rows as a list")
    return rows, first


def main() -> int:
    sums = []
    place = 0
    try:
        # sys.set_int_max_str_digits is not touched: a number of over 4,000 digits is bad data here.
        rows, place = rows_of(json.load(sys.stdin, parse_float=Decimal))
        for row in rows:
            sums.append(add(row))
            place += 1
    except (BadRow, ValueError) as error:
        print(f"row {place}: {error}", file=sys.stderr)
        return BAD_DATA
    print("\n".join(sums))
    return 0


if __name__ == "__main__":
    sys.exit(main())
