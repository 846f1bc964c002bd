"""Readers of single fields of a server's answer: each returns the right type or raises BadAnswer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client_container.failures import BadAnswer

#: Beyond any count or number of seconds; NaN and Infinity fail the comparison, too.
_TOO_BIG = 2**63


def required(fields: Mapping[str, Any], name: str) -> Any:
    """The value of a field that must be there."""
    if name not in fields:
        raise BadAnswer(f"The server's answer lacks the field {name!r}.")
    return fields[name]


def an_object(value: Any, what: str) -> dict[str, Any]:
    """The value itself, when it is a JSON object."""
    if not isinstance(value, dict):
        raise BadAnswer(f"In the server's answer {what} is not a JSON object.")
    return value


def a_list(value: Any, what: str) -> list[Any]:
    """The value itself, when it is a list."""
    if not isinstance(value, list):
        raise BadAnswer(f"In the server's answer {what} is not a list.")
    return value


def text(fields: Mapping[str, Any], name: str) -> str:
    """The value of a field that must be a string."""
    value = required(fields, name)
    if not isinstance(value, str):
        raise BadAnswer(f"In the server's answer {name!r} is not a string.")
    return value


def optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    """The value of a field that may be a string, null or absent."""
    return None if fields.get(name) is None else text(fields, name)


def texts(fields: Mapping[str, Any], name: str) -> list[str]:
    """The value of a field that must be a list of strings."""
    values = a_list(required(fields, name), name)
    if not all(isinstance(value, str) for value in values):
        raise BadAnswer(f"In the server's answer {name!r} is not a list of strings.")
    return values


def number(fields: Mapping[str, Any], name: str, *, above: float | None = None) -> float:
    """The value of a field that must be a finite number, greater than `above` when that is given."""
    value = required(fields, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _TOO_BIG:
        raise BadAnswer(f"In the server's answer {name!r} is not a number.")
    if above is not None and value <= above:
        raise BadAnswer(f"In the server's answer {name!r} is not above {above:g}.")
    return value
