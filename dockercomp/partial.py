"""A results file that a broken download left: where it ends, and how to go on behind its last whole row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from dockercomp.table import rows


def last_cursor(path: Path) -> str | None:
    """TASK.N.ROW of the last whole row in the file, or None where there is none (or no file)."""
    cursor = None
    for _, row in _whole_rows(path):
        cursor = ".".join(row[:3])
    return cursor


def layout(path: Path) -> str | None:
    """The server's short name of the file's columns, or None where there is no header line."""
    with path.open(newline="", encoding="utf-8") as file:
        header = next(rows(file), None)
    return None if header is None else hashlib.sha256(json.dumps(header).encode()).hexdigest()[:16]


def cut_partial_line(path: Path) -> None:
    """Cut the file behind its last whole row."""
    end = 0
    for behind, _ in _whole_rows(path, header=True):
        end = behind
    with path.open("r+b") as file:
        file.truncate(end)


def _whole_rows(path: Path, *, header: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(offset behind it, values) of each row that ends in the server's line end and has all its columns."""
    if not path.exists():
        return
    with path.open("rb") as file:
        lines = _Counted(file)
        columns = 0
        for row in rows(lines):
            if not lines.last.endswith("\r\n"):
                return
            if not columns:
                columns = len(row)
                if row[:3] != ["task", "n", "row"]:
                    return
                if header:
                    yield lines.offset, row
            elif len(row) == columns:
                yield lines.offset, row


class _Counted:
    """Decoded lines of a file, with the offset behind the last one."""

    def __init__(self, raw: object) -> None:
        self._raw = raw
        self.offset = 0
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        for line in self._raw:  # type: ignore[attr-defined]
            self.offset += len(line)
            self.last = line.decode("utf-8", "replace")
            yield self.last
