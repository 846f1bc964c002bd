"""Patterns of file names, as a job's `outputs` have them. Pure.

`*` and `?` stand for any letters and for one letter of a part, `**` alone for any number of parts: `*.csv` is a table
at the top, `**/*.csv` one anywhere, `model/**` everything in a folder. Other characters stand for themselves.
"""

from __future__ import annotations

import re
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
    """Each stretch between two stars is taken where it comes first: so none has to be looked for again."""
    first, *others = pattern.split("*")
    if not others:
        return len(part) == len(first) and _found(part, first, 0, len(part)) == 0
    *between, last = others
    at, end = len(first), len(part) - len(last)
    if at > end or _found(part, first, 0, at) != 0 or _found(part, last, end, len(part)) != end:
        return False
    for stretch in between:
        if (begin := _found(part, stretch, at, end)) < 0:
            return False
        at = begin + len(stretch)
    return True


def _found(part: str, stretch: str, begin: int, end: int) -> int:
    """Where it first stands between these places; -1: nowhere. By what is written in C: names and patterns are many."""
    if "?" not in stretch:
        return part.find(stretch, begin, end)
    found = re.compile(re.escape(stretch).replace(r"\?", "."), re.DOTALL).search(part, begin, end)
    return -1 if found is None else found.start()
