"""`requires` of a job: {"arch": "x86_64", "os": ["linux", "freebsd"], "memory_mb": {"at_least": 4096}}."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator

from source_server.domain.requirements import Requirement

MOST = 32  #: requirements of a job, and values to choose from
LONGEST = 200
LARGEST = 1e18

FORM = 'must be a text, a number, a list of those, or {"at_least": NUMBER}'


def requirements(body: dict[str, Any]) -> tuple[Requirement, ...]:
    """Requirements of the domain, from a body that was checked."""
    return tuple(_requirement(name, asked) for name, asked in body.items())


def _requirement(name: str, asked: Any) -> Requirement:
    if isinstance(asked, dict):
        return Requirement(name=name, at_least=float(asked["at_least"]))
    return Requirement(name=name, one_of=tuple(asked) if isinstance(asked, list) else (asked,))


def _sound(body: dict[str, Any]) -> dict[str, Any]:
    if len(body) > MOST:
        raise ValueError(f"must not have more than {MOST} names")
    for name, asked in body.items():
        if not name or not _is_text(name):
            raise ValueError(f"must have names of 1 to {LONGEST} characters")
        if isinstance(asked, dict):
            good = set(asked) == {"at_least"} and _is_number(asked["at_least"])
        elif isinstance(asked, list):
            good = 0 < len(asked) <= MOST and all(map(_is_label, asked))
        else:
            good = _is_label(asked)
        if not good:
            raise ValueError(f"{name!r} {FORM}")
    return body


def _is_label(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and _is_text(value))


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST and math.isfinite(value)


def _is_text(text: str) -> bool:
    return (
        len(text) <= LONGEST
        and "\0" not in text
        and not any("\ud800" <= letter <= "\udfff" for letter in text)
    )


Requires = Annotated[dict[str, Any], AfterValidator(_sound)]
