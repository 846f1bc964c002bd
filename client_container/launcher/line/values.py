"""Readers of single values of a request: each returns the right type or raises Refusal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from client_container.launcher.line.refusal import Refusal

MOST_ITEMS = 4096  #: of an action, of an env
_LONGEST_NUMBER = 30  #: digits; reading a longer one takes time that grows with the square of its length


def an_object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object that must be there."""
    value = fields.get(name)
    if not isinstance(value, dict):
        raise Refusal("bad_request", f"The request lacks the object {name!r}.")
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """A string that must be there."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refusal("bad_request", f"In the request {name!r:.100} is not a string.")
    return encodable(value, name)


def encodable(text: str, name: str) -> str:
    """JSON can spell half a surrogate pair, which no file, pipe or command line can carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal("bad_request", f"In the request {name!r:.100} is not valid Unicode.") from None
    return text


def word(fields: Mapping[str, Any], name: str, *, longest: int = 200) -> str:
    """A name that may stand in a log, in a label and in a sentence."""
    value = text(fields, name)
    if not 0 < len(value) <= longest or not value.isprintable():
        raise Refusal("bad_request", f"In the request {name!r} is not 1 to {longest} printable characters.")
    return value


def matching(fields: Mapping[str, Any], name: str, form: re.Pattern[str], what: str) -> str:
    """A string of this form."""
    value = text(fields, name)
    if form.fullmatch(value) is None:
        raise Refusal("bad_request", f"In the request {name!r} is not {what}.")
    return value


def texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of strings that must be there."""
    values = fields.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refusal("bad_request", f"In the request {name!r} is not a list of strings.")
    if len(values) > MOST_ITEMS:
        raise Refusal("bad_request", f"In the request {name!r} has more than {MOST_ITEMS} items.")
    return tuple(encodable(value, name) for value in values)


def optional_int(fields: Mapping[str, Any], name: str, *, most: float) -> int | None:
    """A whole number of at least 1, or None where there is none."""
    return None if fields.get(name) is None else int(number(fields, name, least=1, most=most, whole=True))


def number(fields: Mapping[str, Any], name: str, *, least: float, most: float, whole: bool = False) -> float:
    """A number within bounds that must be there."""
    value = fields.get(name)
    right_kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right_kind or not least <= (number := float(value or 0)) <= most:
        raise Refusal("bad_request", f"In the request {name!r} is not a number from {least:g} to {most:g}.")
    return number


def short_int(text: str) -> int:
    """A whole number that takes no time to read; raises ValueError."""
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("too many digits")
    return int(text)


def short_float(text: str) -> float:
    """A finite number; raises ValueError."""
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def no_constant(text: str) -> float:
    """For NaN and Infinity; raises ValueError."""
    raise ValueError(f"{text} is not JSON")
