"""The messages about calculations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from source_server.web.shapes import Instant, Said
from source_server.web.wire import Strict, matching, no_nul

#: Longer texts come through to be refused in words of their own.
Typed = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(no_nul)]
Choice = Annotated[str, StringConstraints(max_length=100), AfterValidator(no_nul)]
RequestId = Annotated[
    str,
    AfterValidator(
        matching(r"[A-Za-z0-9_-]{8,64}", "must have 8 to 64 letters, digits, dashes and underscores")
    ),
]


class CalculationBody(Strict):
    """`POST /calculations`."""

    calculation: Typed = Field(description="NUM OP NUM, as somebody typed it.")
    os: Choice | None = Field(
        default=None, description="A system (debian-12, scratch); any if it is not said."
    )
    language: Choice | None = Field(default=None, description="A language; any if it is not said.")
    check: bool = Field(default=False, description="Have several environments compute it, which must agree.")
    id: RequestId | None = Field(
        default=None,
        description="The caller's name for this request: sent again, it is the same calculation.",
    )


class Place(Said):
    """An environment."""

    name: str
    os: str | None
    language: str | None
    version: str | None


class Opinion(Said):
    """What one environment said, of a calculation that several computed."""

    environment: str
    answer: str
    verdict: str


class Calculation(Said):
    """A calculation and what has become of it."""

    id: str
    calculation: str
    left: str
    operator: str
    right: str
    asked: Instant
    wanted: dict[str, str | bool | None]
    state: Literal["waiting", "computing", "answered", "error"]
    where: list[Place]
    account: str | None = Field(description="Pseudonym of the volunteer whose machine computed it.")
    answer: str | None = Field(description="As %.17g writes a double.")
    error: str | None
    opinions: list[Opinion]
    disagreed: list[str] = Field(description="Environments that gave another answer than the accepted one.")
    chunk: str | None


class Calculations(Said):
    """Calculations, newest first."""

    calculations: list[Calculation]


class Calculator(Said):
    """An environment, and how its answers compared with others' of late."""

    name: str
    os: str
    release: str
    language: str
    version: str
    image: str
    agreed: int
    disagreed: int


class Calculators(Said):
    """What calculates here."""

    calculators: list[Calculator]
    cross_check: int | None = Field(description="How many environments compute a checked calculation.")
