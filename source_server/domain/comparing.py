"""When two answers say the same, as JSON values whose numbers may differ by a tolerance.

What one answer says is read once, into its form and its numbers; comparing two is then a walk over two lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException, localcontext
from itertools import compress
from operator import is_not
from typing import Any, NoReturn

MAX_COMPARED = 64 * 1024  #: bytes of an answer; a longer one agrees only with itself, byte for byte

_DIGITS = 60  #: of the arithmetic


class _NotJson(Exception):
    """The text is not JSON that can be compared."""


@dataclass(frozen=True)
class _Read:
    """An answer: `form` is all of it but its numbers, `within` how far each number may be from another's."""

    form: tuple[Any, ...]
    numbers: list[Decimal]
    within: list[Decimal]


class Tolerance:
    """Compares answers of one chunk, each of which is read once.

    They agree line by line: each a JSON value, or else byte for byte. Two numbers agree when they differ by at most
    `absolute`, or by at most `relative` of the larger one. Numbers of any size are compared as decimals, never rounded
    to floats. Text of more than MAX_COMPARED bytes agrees only with itself.
    """

    def __init__(self, answers: Mapping[str, str], *, relative: float, absolute: float) -> None:
        """`answers`: texts by whatever names them."""
        self._answers = answers
        self._relative, self._absolute = Decimal(repr(relative)), Decimal(repr(absolute))
        self._number = _Numbers()
        self._read: dict[str, _Read | None] = {}

    def same(self, one: str, other: str) -> bool | None:
        """Whether the answers of these names agree; None where one is not there."""
        text, text_too = self._answers.get(one), self._answers.get(other)
        if text is None or text_too is None:
            return None
        if text == text_too:
            return True
        left, right = self._reading(one, text), self._reading(other, text_too)
        return left is not None and right is not None and left.form == right.form and _near(left, right)

    def _reading(self, name: str, text: str) -> _Read | None:
        if name not in self._read:
            self._read[name] = self._read_anew(text)
        return self._read[name]

    def _read_anew(self, text: str) -> _Read | None:
        if len(text) > MAX_COMPARED or len(text.encode()) > MAX_COMPARED:
            return None
        form: list[Any] = []
        numbers: list[Decimal] = []
        # Not splitlines(): a JSON string may hold a bare U+2028, which that takes for the end of a line.
        for line in text.removesuffix("\n").split("\n"):
            try:
                _take_apart(_parsed(line, self._number.__getitem__), form, numbers)
            except _NotJson:
                form.append((_NotJson, line))
            form.append("\n")
        try:
            with localcontext() as context:
                context.prec = _DIGITS
                within = [max(self._absolute, self._relative * abs(one)) for one in numbers]
        except DecimalException:
            return None
        return _Read(tuple(form), numbers, within)


class _Numbers(dict[str, Decimal]):
    """Number text -> its value, one object for all alike: answers to one chunk have most of theirs in common."""

    def __missing__(self, text: str) -> Decimal:
        value = self[text] = Decimal(text)
        return value


def _near(one: _Read, other: _Read) -> bool:
    # The larger one's share, or `absolute`: whichever of the two bounds is wider.
    unequal = map(is_not, one.numbers, other.numbers)
    rows = zip(one.numbers, other.numbers, one.within, other.within, strict=True)
    try:
        with localcontext() as context:
            context.prec = _DIGITS
            for left, right, near, near_too in compress(rows, unequal):
                apart = abs(left - right)
                if apart > near and apart > near_too:
                    return False
    except DecimalException:
        return False
    return True


def _parsed(text: str, number: Callable[[str], Decimal]) -> Any:
    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=_no_constant)
    except (ValueError, DecimalException, RecursionError) as error:
        raise _NotJson from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _take_apart(value: Any, form: list[Any], numbers: list[Decimal]) -> None:
    """Append a value's form and its numbers, in an order that the order of names in objects has no part in."""
    left = [value]  # not by recursion: a value may be as deep as the parser bears
    while left:
        one = left.pop()
        if isinstance(one, Decimal):
            numbers.append(one)
            form.append(Decimal)
        elif isinstance(one, dict):
            names = sorted(one)
            form.append((dict, *names))
            left.extend(one[name] for name in names)
        elif isinstance(one, list):
            form.append((list, len(one)))
            left.extend(one)
        else:
            form.append((type(one), one))
