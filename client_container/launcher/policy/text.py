"""Sizes and hours as people write them: "2g", "18:00-24:00", "mon-fri 18:00-24:00; sat,sun always". Pure.

Every reader raises ValueError whose message ends the sentence "KEY must be ...".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import time

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GROUPS = {"weekdays": DAYS[:5], "weekend": DAYS[5:], "daily": DAYS}
MINUTES = tuple[time, time]  #: from, until; until may be earlier, which means the next day
Hours = dict[str, tuple[MINUTES, ...]]

ALL_DAY: MINUTES = (time(0), time(0))
_UNITS = " kmgt"
_SIZE = re.compile(r"([1-9][0-9]{0,15})([kmgt]?)b?", re.IGNORECASE | re.ASCII)
_RANGE = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def read_size(text: object) -> int:
    """Bytes, from 512m or 2g."""
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    size = int(match[1]) * 1024 ** _UNITS.index(match[2].lower() or " ") if match else 0
    if not 0 < size < 2**62:
        raise ValueError('a size like "512m" or "2g"')
    return size


def show_size(size: int) -> str:
    """The shortest text that read_size takes for exactly this size."""
    power = 0
    while power < 4 and size and size % 1024 == 0:
        size, power = size // 1024, power + 1
    return f"{size}{_UNITS[power].strip()}"


def about(size: float) -> str:
    """A size to look at, like 1.4 GB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def read_duration(text: str) -> float:
    """Seconds, from 30s, 90m, 2h or 1d."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise ValueError("a time like 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def show_duration(seconds: float) -> str:
    """A time to look at, like 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def read_range(text: object) -> MINUTES:
    """Two times of a day, from "18:00-24:00"; 22:00-06:00 goes into the next day."""
    match = _RANGE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError('times like "18:00-24:00"')
    begin, until = (_minute(int(match[n]), int(match[n + 1])) for n in (1, 3))
    if match[1] == "24":
        raise ValueError('times like "18:00-24:00", the first before 24:00')
    return begin, until


def show_range(times: MINUTES) -> str:
    """The text that read_range takes for these times."""
    begin, until = times
    return f"{begin:%H:%M}-{'24:00' if until == time(0) else f'{until:%H:%M}'}"


def read_hours_line(text: str) -> Hours:
    """Hours by weekday from one line: "always", "18:00-08:00" (every day) or "mon-fri 18:00-24:00; sat,sun always"."""
    hours: Hours = {}
    if text.strip().lower() in ("always", "never"):
        return {} if text.strip().lower() == "always" else dict.fromkeys(DAYS, ())
    for group in filter(None, (part.strip() for part in text.lower().split(";"))):
        first, *rest = group.split()
        days = tuple(DAYS) if first[0].isdigit() else _days(first)
        ranges = [first, *rest] if first[0].isdigit() else rest
        if not ranges or set(days) & hours.keys():
            raise ValueError(_LINE)
        for day in days:
            hours[day] = _ranges(ranges)
    if not hours:
        raise ValueError(_LINE)
    return hours


def show_hours(hours: Hours) -> str:
    """One line that read_hours_line takes for these hours."""
    if not hours:
        return "always"
    named = [(name, ranges) for name, ranges in grouped(hours).items() if ranges]
    return "; ".join(f"{name} {' '.join(map(show_range, ranges))}" for name, ranges in named) or "never"


def grouped(hours: Hours) -> Hours:
    """The same hours by daily, weekdays or weekend where all their days are alike, else by day."""
    for names in (("daily",), ("weekdays", "weekend")):
        alike = [name for name in names if len({hours.get(day) for day in GROUPS[name]} - {None}) == 1]
        whole = [name for name in alike if all(day in hours for day in GROUPS[name])]
        if whole:
            covered = {day for name in whole for day in GROUPS[name]}
            return {name: hours[GROUPS[name][0]] for name in whole} | {
                day: hours[day] for day in DAYS if day in hours and day not in covered
            }
    return {day: hours[day] for day in DAYS if day in hours}


_LINE = 'hours like "mon-fri 18:00-24:00; sat,sun 00:00-24:00", or "always"'


def _minute(hour: int, minute: int) -> time:
    if (hour, minute) == (24, 0):
        return time(0)
    if hour > 23 or minute > 59:
        raise ValueError('times like "18:00-24:00"')
    return time(hour, minute)


def _ranges(texts: Iterable[str]) -> tuple[MINUTES, ...]:
    try:
        return tuple(ALL_DAY if text == "always" else read_range(text) for text in texts)
    except ValueError:
        raise ValueError(_LINE) from None


def _days(text: str) -> tuple[str, ...]:
    """mon | mon,wed | mon-fri | weekdays | weekend | daily."""
    days: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part in GROUPS:
            days += GROUPS[part]
        elif first in DAYS and (not dash or last in DAYS):
            begin, end = DAYS.index(first), DAYS.index(last or first)
            days += DAYS[begin : end + 1] if begin <= end else DAYS[begin:] + DAYS[: end + 1]
        else:
            raise ValueError(_LINE)
    if len(set(days)) < len(days):
        raise ValueError(_LINE)
    return tuple(days)
