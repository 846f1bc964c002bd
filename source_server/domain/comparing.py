"""When two answers say the same, as JSON values whose numbers may differ by a tolerance."""

from __future__ import annotations

import json
from decimal import Decimal, DecimalException, localcontext
from typing import Any, NoReturn


class _NotJson(Exception):
    """The text is not JSON that can be compared."""


def same_json(one: str, other: str, *, relative: float, absolute: float) -> bool:
    """Whether two answers agree: line by line, each a JSON value, or else byte for byte.

    Two numbers agree when they differ by at most `absolute`, or by at most `relative` of the larger one. Numbers of
    any size are compared as decimals, never rounded to floats. Text that is not JSON agrees only with itself.
    """
    if one == other:
        return True
    # Not splitlines(): a JSON string may hold a bare U+2028, which that takes for the end of a line.
    lines, others = (text.removesuffix("\n").split("\n") for text in (one, other))
    if len(lines) != len(others):
        return False
    bounds = (Decimal(repr(relative)), Decimal(repr(absolute)))
    return all(
        left == right or _same_line(left, right, bounds) for left, right in zip(lines, others, strict=True)
    )


def _same_line(one: str, other: str, bounds: tuple[Decimal, Decimal]) -> bool:
    try:
        with localcontext() as context:
            context.prec = 60
            return _same(_parsed(one), _parsed(other), bounds)
    except (_NotJson, DecimalException, RecursionError):
        return False


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_constant)
    except ValueError as error:
        raise _NotJson from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _same(one: Any, other: Any, bounds: tuple[Decimal, Decimal]) -> bool:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        relative, absolute = bounds
        return abs(one - other) <= max(absolute, relative * max(abs(one), abs(other)))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key], bounds) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            _same(left, right, bounds) for left, right in zip(one, other, strict=True)
        )
    return type(one) is type(other) and bool(one == other)
