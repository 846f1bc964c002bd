"""Texts, times and sizes as people write them; `where` is said in the complaint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from source_server.domain.refusal import BadInput

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MIB = {"m": 1, "g": 1024, "t": 1024 * 1024}


def word(value: Any, where: str) -> str:
    """A text, or a number as it would be typed; nothing that YAML might have meant otherwise. Raises BadInput."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise BadInput(f"{where} must be a text; write it in quotes.")


def _amount(value: Any, units: Mapping[str, float], where: str, like: str) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([a-z])b?", str(value).lower())
    if found is None or found.group(2) not in units:
        raise BadInput(f"{where} must be like {like}, not {value!r}.")
    return float(found.group(1)) * units[found.group(2)]


def seconds(value: Any, where: str) -> float | None:
    """A duration: seconds, or like 10m. Raises BadInput."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return _amount(value, _SECONDS, where, "90s, 10m, 2h or 1d")


def mib(value: Any, where: str) -> int | None:
    """A size like 512m, in MiB; a bare number is refused, for it could be anything. Raises BadInput."""
    if isinstance(value, int | float):
        raise BadInput(f"{where} must have its unit, like 512m or 2g, not {value!r}.")
    amount = _amount(value, _MIB, where, "512m or 2g")
    return None if amount is None else max(1, math.ceil(amount))
