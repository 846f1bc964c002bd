"""Calculations: what people type, and where it is computed. Nothing is ever rewritten: it is sent, or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from operator import add, mul, sub, truediv

from source_server.domain.refusal import BadInput

PROJECT = "calculators"  #: whose tasks compute what people type
CHECKED = "calculations-checked-"  #: with which the ids of those begin whose answers are compared
LONGEST = 60  #: letters of a number, as every calculator takes it
LONGEST_TEXT = 200  #: letters of what is typed
EXAMPLE = "Write two numbers and + - * or / between them, like 1.21 / -32.33."

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_CALCULATION = re.compile(rf"[ \t]*({_NUMBER})[ \t]*([-+*/])[ \t]*({_NUMBER})[ \t]*")
_LOOKALIKES = {"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "∙": "*", "÷": "/", ":": "/"}


_OPERATORS: dict[str, Callable[[float, float], float]] = {"+": add, "-": sub, "*": mul, "/": truediv}


@dataclass(frozen=True, kw_only=True)
class Calculation:
    """NUM OP NUM: the very texts that were typed, which a calculator gets as its arguments."""

    left: str
    operator: str
    right: str


def parse(text: str) -> Calculation:
    """The one calculation that a text is; raises BadInput, with a sentence, for anything else."""
    text = text.strip()
    if not text:
        raise BadInput(EXAMPLE)
    if len(text) > LONGEST_TEXT:
        raise BadInput(f"A calculation has at most {LONGEST_TEXT} letters.")
    found = _CALCULATION.fullmatch(text)
    if found is None:
        raise BadInput(_why_not(text))
    left, operator, right = found.groups()
    for number in (left, right):
        _require_double(number)
    return Calculation(left=left, operator=operator, right=right)


def has_no_answer(row: Mapping[str, object]) -> bool:
    """Whether no double answers this row of a calculators' task: then every calculator says that its data is bad."""
    try:
        left, right = float(str(row["left"])), float(str(row["right"]))
        operate = _OPERATORS[str(row["operator"])]
    except (KeyError, ValueError):
        return False
    return (operate is truediv and right == 0) or not math.isfinite(operate(left, right))


def _require_double(number: str) -> None:
    if len(number) > LONGEST:
        raise BadInput(f"A number has at most {LONGEST} letters.")
    value, mantissa = float(number), re.split("[eE]", number)[0]
    if math.isinf(value) or (value == 0 and re.search("[1-9]", mantissa)):
        raise BadInput(f"{number} lies outside the range of a double (about 5e-324 to 1.8e308).")


def _why_not(text: str) -> str:
    """What is wrong with a text that is no calculation, in one sentence."""
    strange = next((letter for letter in text if not (letter.isascii() and letter.isprintable())), None)
    if strange in _LOOKALIKES:
        return f"The sign {strange} is not understood: write {_LOOKALIKES[strange]} in its place."
    if strange is not None:
        return f"The letter {strange!r} is not understood. {EXAMPLE}"
    if "(" in text or ")" in text:
        return f"Parentheses are not understood: one calculation has two numbers. {EXAMPLE}"
    if "," in text:
        return "A comma is not understood: write a point before the fraction, and nothing between thousands."
    if re.search(r"[A-DF-Za-df-z_]", text):
        return f"Only decimal digits are numbers, with a point and an exponent like e-3. {EXAMPLE}"
    numbers = re.findall(_NUMBER, text)
    if len(numbers) > 2:
        return f"There are more than two numbers, and which comes first is not guessed. {EXAMPLE}"
    if len(numbers) < 2:
        return f"There are not two numbers. {EXAMPLE}"
    return f"This is not understood. {EXAMPLE}"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a calculation can be computed: a language on a system, as one image."""

    name: str  #: perl-bookworm; also the name of the job's variant
    image: str  #: sha256:...
    action: tuple[str, ...]  #: the command before the calculation's three arguments
    os: str  #: debian-12, scratch
    release: str  #: bookworm
    language: str
    version: str  #: of the language


@dataclass(frozen=True, kw_only=True)
class Calculators:
    """What the operator has enabled."""

    environments: tuple[Environment, ...]
    generation: int  #: raised with every change: part of the tasks' ids
    anywhere: str  #: id of the task whose calculations any environment computes
    named: str  #: of the one whose calculations name their environment
    checked: str | None  #: of the one in which several environments have to agree
    quorum: int | None  #: how many


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A calculation that somebody asked for. Ids grow with time."""

    id: str
    key: str  #: the asker's own name for the request: sent again, it is the same calculation
    account: str
    at: datetime
    text: str
    calculation: Calculation
    task: str
    environment: str | None = None  #: the one that was chosen for it; None: any
    os: str | None = None  #: what was asked for
    language: str | None = None
    n: int | None = None  #: its number in the task; None: not handed over yet


class Progress(str, Enum):
    """How far a calculation is."""

    WAITING = "waiting"
    COMPUTING = "computing"
    ANSWERED = "answered"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one environment said."""

    environment: str
    answer: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A calculation and what has become of it."""

    asked: Asked
    state: Progress
    environments: tuple[str, ...] = ()  #: where it is computed, or was
    account: str | None = None  #: pseudonym of the volunteer whose machine computed the answer
    answer: str | None = None
    error: str | None = None
    opinions: tuple[Opinion, ...] = ()  #: of a checked one: all that was said
    disagreed: tuple[str, ...] = field(default=())  #: environments whose answers are not the accepted one


ANY = ("", "any")


def matching(known: Sequence[Environment], os: str | None, language: str | None) -> list[Environment]:
    """The environments of this system (or release) and language; raises BadInput where there are none."""
    for wished, what, names in (
        (os, "system", {one.os for one in known}),
        (language, "language", {one.language for one in known}),
    ):
        if wished is not None and wished not in names:
            raise BadInput(f"There is no calculator for the {what} {wished!r}; there are {_listed(names)}.")
    found = [one for one in known if os in (None, one.os) and language in (None, one.language)]
    if not found:
        raise BadInput(f"There is no calculator for {language} on {os}.")
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
