"""The shapes of answers about calculations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from source_server.web.shapes.base import Instant, Said


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
