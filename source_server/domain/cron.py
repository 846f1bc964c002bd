"""Cron expressions: which day of the week a number means, and the latest planned time before now.

The time itself is found by a `NextTime`, which is handed in; here is what it must be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

NextTime = Callable[[datetime], "datetime | None"]  #: the first planned time at or after this instant

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_TICK = timedelta(microseconds=1)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
#: How far back is looked, the shortest first: in a busy schedule the latest time is near, and a rare one has few.
BACK = (_HOUR, _DAY, 32 * _DAY, 367 * _DAY, 9 * 366 * _DAY)
_ITEM = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/([0-9]{1,2}))?")


class BadCron(ValueError):
    """An expression that means nothing, or not what it seems to; the message is one sentence."""


def normalised(expression: str) -> str:
    """The expression with its days of the week by name (0 and 7 are Sunday); raises BadCron."""
    fields = expression.split()
    if len(fields) != 5:
        raise BadCron(
            f"A cron expression has five fields (minute hour day month weekday), not {len(fields)}."
        )
    if fields[2] != "*" and fields[4] != "*":
        # Cron itself takes either of the two then, which nobody expects.
        raise BadCron("Say either days of the month or days of the week; make two schedules for both.")
    if fields[4] != "*":
        fields[4] = ",".join(DAYS[day] for day in _weekdays(fields[4]))
    return " ".join(fields)


def _weekdays(field: str) -> list[int]:
    found = set[int]()
    for item in field.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None or match[4] == "0":
            raise BadCron(
                f"{item!r} is no day of the week: they are 0 to 7 (Sunday is 0 and 7), or sun to sat."
            )
        first = 0 if match[2] is None else _weekday(match[2])
        last = 6 if match[2] is None else first if match[3] is None else _weekday(match[3], first)
        found.update(day % 7 for day in range(first, last + 1, int(match[4] or 1)))
    return sorted(found)


def _weekday(text: str, first: int = 0) -> int:
    """0 to 7; at the end of a range that begins with `first`, Sunday is 7 (mon-sun)."""
    day = DAYS.index(text) if text in DAYS else int(text) if re.fullmatch("[0-7]", text) else None
    if day is None:
        raise BadCron(f"{text!r} is no day of the week: they are 0 to 7 (Sunday is 0 and 7), or sun to sat.")
    day = 7 if day == 0 and first > 0 else day
    if day < first:
        raise BadCron("The days of a range run forward: write fri-sun, or sat,sun,mon.")
    return day


def latest(next_time: NextTime, *, after: datetime, now: datetime) -> datetime | None:
    """The latest planned time in (after, now], in UTC; None when there is none.

    Only the latest: after a downtime, what was missed before it does not come any more.
    """
    for window in BACK:
        start = max(after, now - window)
        found, planned = None, next_time((start + _TICK).astimezone(timezone.utc))
        while planned is not None and planned <= now:
            found = planned.astimezone(timezone.utc)
            planned = next_time(found + _TICK)
        if found is not None or start == after:
            return found
    return None
