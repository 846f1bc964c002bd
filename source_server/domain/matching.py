"""Which answers count for `stop_when`: a few comparisons, each done in time that grows with the answer and no faster.

There are no patterns and no expressions: a pattern of a stranger's can keep a server busy for hours.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

Scalar = str | float | bool | None

LONGEST_NUMBER = 400  #: digits of a number in an answer that is looked at
DEEPEST = 8  #: parts of a field's name


@dataclass(frozen=True, kw_only=True)
class Match:
    """All that is said has to hold for an answer, or for the field of it that is named."""

    field: tuple[str, ...] = ()  #: names (of an object) and places (in a list, from 0) in a JSON answer
    has_equals: bool = False
    #: Text as it stands (blanks around it do not count), or a number, true, false, null.
    equals: Scalar = None
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        says = [f"equal to {json.dumps(self.equals)}"] if self.has_equals else []
        says += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        says += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        about = f"{'.'.join(self.field)} " if self.field else "a value "
        return about + " and ".join(says)


def matching(match: Match | None, answer: str, *, lines: bool) -> int:
    """How many answers of this text match: with `lines` each line is one, else the whole of it."""
    texts = answer.splitlines() if lines else [answer]
    return sum(match is None or matches(match, text) for text in texts)


def matches(match: Match, answer: str) -> bool:
    """Whether one answer is of the kind; what is not JSON, has no such field or is no number is not."""
    if match.field:
        try:
            value = _at(json.loads(answer, parse_int=_whole, parse_constant=_none), match.field)
        except (ValueError, RecursionError, LookupError):
            return False
        return _fits(match, value)
    return _fits(match, answer.strip())


def _fits(match: Match, value: Any) -> bool:
    if match.has_equals and not _equal(value, match.equals, as_text=not match.field):
        return False
    if match.at_least is None and match.at_most is None:
        return match.has_equals
    number = _number(value) if not match.field else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        return False
    above = match.at_least is None or number >= match.at_least
    return above and (match.at_most is None or number <= match.at_most)


def _equal(value: Any, wanted: Scalar, *, as_text: bool) -> bool:
    if isinstance(wanted, bool) or wanted is None:
        return (value == json.dumps(wanted)) if as_text else value is wanted
    if isinstance(wanted, int | float):
        number = _number(value) if as_text else value
        return isinstance(number, int | float) and not isinstance(number, bool) and number == wanted
    return bool(isinstance(value, str) and value == wanted.strip()) if as_text else value == wanted


def _number(text: str) -> float | None:
    if len(text) > LONGEST_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _at(value: Any, field: tuple[str, ...]) -> Any:
    for part in field:
        if isinstance(value, list):
            if not part.isdecimal() or len(part) > 9:
                raise LookupError(part)
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value[part]
        else:
            raise LookupError(part)
    return value


def _whole(digits: str) -> int:
    # Python's own bound is 4,300 digits, and some releases of it have none.
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    return int(digits)


def _none(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
