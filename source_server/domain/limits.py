"""How far a task may go: machine time, a date, or enough answers of a kind; and what happens then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from source_server.domain.matching import Match


class Then(str, Enum):
    """What becomes of a task that has used up its time."""

    PAUSE = "pause"
    END = "end"


@dataclass(frozen=True, kw_only=True)
class StopWhen:
    """So many accepted answers that match are enough; without a `match`, every answer does."""

    answers: int
    match: Match | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a task may use; None: as much as it takes."""

    cpu_hours: float | None = None  #: processor hours of all its attempts, failed ones too
    until: datetime | None = None
    stop_when: StopWhen | None = None
    then: Then = Then.PAUSE  #: at cpu_hours and until

    @property
    def counting(self) -> bool:
        """Whether its attempts have to be counted."""
        return self.cpu_hours is not None or self.stop_when is not None


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a task has used, as far as it is counted."""

    cpu_s: float = 0.0  #: processor seconds
    answers: int = 0  #: accepted answers that match


def enough(limits: Limits, used: Used) -> str | None:
    """Why a task has all the answers that were wanted, as a sentence; None: it has not."""
    wanted = limits.stop_when
    if wanted is None or used.answers < wanted.answers:
        return None
    kind = "" if wanted.match is None else f" with {wanted.match}"
    return f"It has {used.answers} accepted answers{kind}; {wanted.answers} were wanted."


def over(limits: Limits, used: Used, now: datetime) -> str | None:
    """Why a task may not go on, as a sentence; None: it may."""
    return " ".join(_over(limits, used, now)) or None


def _over(limits: Limits, used: Used, now: datetime) -> Iterator[str]:
    if limits.cpu_hours is not None and used.cpu_s >= limits.cpu_hours * 3600:
        yield f"It has used {used.cpu_s / 3600:.4g} of {limits.cpu_hours:g} processor hours."
    if limits.until is not None and now >= limits.until:
        yield f"Its time was over at {limits.until:%Y-%m-%d %H:%M:%S} UTC."
