"""`--requires`: what a job asks of the labels and resources of a container."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import click

HINT = "--requires"


def requires(texts: Sequence[str]) -> dict[str, Any]:
    """name -> a value, a list of values, or {"at_least": number}; raises BadParameter with one sentence."""
    asked: dict[str, Any] = {}
    for text in texts:
        name, wanted = _asked(text)
        if name in asked:
            sentence = f"{name} may come only once; write {name}=ONE|OTHER for a choice."
            raise click.BadParameter(sentence, param_hint=HINT)
        asked[name] = wanted
    return asked


def _asked(text: str) -> tuple[str, Any]:
    found = re.fullmatch(r"\s*([^=<>|]*[^=<>|\s])\s*(>=|=)(.+)", text)
    if found is None:
        sentence = f"{text!r} must be NAME=VALUE, NAME=ONE|OTHER or NAME>=NUMBER."
        raise click.BadParameter(sentence, param_hint=HINT)
    name, sign, wanted = found.groups()
    if sign == "=":
        values = [_label(one.strip()) for one in wanted.split("|")]
        return name, values[0] if len(values) == 1 else values
    least = _label(wanted.strip())
    if isinstance(least, str):
        raise click.BadParameter(f"{text!r} must have a number behind >=.", param_hint=HINT)
    return name, {"at_least": least}


def _label(text: str) -> str | int | float:
    """Text that is a number becomes one: so are numbers in the labels and resources of containers."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text
