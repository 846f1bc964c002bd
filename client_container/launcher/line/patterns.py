"""Patterns of file names, as a job's `outputs` have them. Pure.

`*` and `?` stand for any letters and for one letter of a part, `**` alone for any number of parts: `*.csv` is a table
at the top, `**/*.csv` one anywhere, `model/**` everything in a folder. Other characters stand for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 1024  #: letters of a pattern
MOST_PATTERNS = 100


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a relative name fits one of the patterns."""
    parts = name.split("/")
    return any(_path_fits(parts, pattern.split("/")) for pattern in patterns)


def _path_fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """In steps that are at most the product of both lengths, whatever a hostile pattern looks like."""
    reached = [True] + [False] * len(parts)  #: whether the pattern so far fits that many parts
    for piece in pattern:
        if piece == "**":
            first = reached.index(True) if True in reached else len(parts) + 1
            reached = [count >= first for count in range(len(parts) + 1)]
        else:
            reached = [False] + [
                reached[count] and _part_fits(parts[count], piece) for count in range(len(parts))
            ]
    return reached[-1]


def _part_fits(part: str, pattern: str) -> bool:
    place = at = 0
    star, resumed = -1, 0
    while place < len(part):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", part[place]):
            place, at = place + 1, at + 1
        elif star >= 0:
            resumed += 1
            place, at = resumed, star + 1
        else:
            return False
    return not pattern[at:].strip("*")
