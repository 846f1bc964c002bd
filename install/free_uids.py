"""Print the first of 2,000 consecutive user and group ids that nobody on this machine has: free_uids.py USER FIRST.

What is reserved for USER in /etc/subuid already stays. Standard library only.
"""

from __future__ import annotations

import grp
import pwd
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

COUNT = 2000
FILES = (Path("/etc/subuid"), Path("/etc/subgid"))

Reserved = tuple[str, int, int]  #: name, first, count


def first_free(user: str, first: int, reserved: Sequence[Reserved], taken: Iterable[int]) -> int:
    """The first id of the user's own range, or of the lowest free one from `first` on, in steps of COUNT."""
    own = [start for name, start, count in reserved if name == user and count >= COUNT]
    if own:
        return own[0]
    blocks = [(start, start + count) for _, start, count in reserved] + [(one, one + 1) for one in taken]
    while any(start < first + COUNT and end > first for start, end in blocks):
        first += COUNT
    return first


def reserved_in(text: str) -> list[Reserved]:
    """The lines of a subuid or subgid file; what is none is passed over."""
    parts = [line.split(":") for line in text.splitlines()]
    return [
        (one[0], int(one[1]), int(one[2]))
        for one in parts
        if len(one) == 3 and one[1].isdigit() and one[2].isdigit()
    ]


def main(user: str, first: str) -> None:
    reserved = [one for path in FILES if path.exists() for one in reserved_in(path.read_text())]
    taken = [one.pw_uid for one in pwd.getpwall()] + [one.gr_gid for one in grp.getgrall()]
    print(first_free(user, int(first), reserved, taken))


if __name__ == "__main__":
    main(*sys.argv[1:3])
