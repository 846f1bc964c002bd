"""Fair share: whose turn it is when many projects want the same machines.

Priority is strict. Below it, the project that used least for its share goes first; what was used counts half after a
day. A newcomer begins at the lowest figure of the others, so that it neither waits nor takes all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

HALF_LIFE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A project's standing: `usage` is in seconds of machine time, as of `as_of`; None: it has used nothing yet."""

    project: str
    share: float = 1.0
    priority: int = 0
    usage: float | None = None
    as_of: datetime | None = None


def decayed(usage: float, as_of: datetime, now: datetime) -> float:
    """What is left of a usage after the time that has passed."""
    halves = max(0.0, (now - as_of) / HALF_LIFE)
    return float(usage * 0.5**halves)


def turns(claims: Sequence[Claim], now: datetime) -> list[str]:
    """The projects in the order in which they are to be served."""
    used = {
        one.project: decayed(one.usage, one.as_of, now) / one.share
        for one in claims
        if one.usage is not None and one.as_of is not None
    }
    lowest = min(used.values(), default=0.0)
    return [
        one.project
        # Among equals a newcomer first: it moves along with the lowest figure until it has used something.
        for one in sorted(
            claims,
            key=lambda one: (
                -one.priority,
                used.get(one.project, lowest),
                one.project in used,
                one.project,
            ),
        )
    ]
