"""The shapes of answers about projects."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from source_server.web.shapes.base import Instant, Said


class Validator(Said):
    """How two answers are compared."""

    kind: Literal["exact", "json", "validator"]
    relative: float
    absolute: float
    validator: list[str] | None
    files: bool = False


class Rule(Said):
    """How answers are checked."""

    quorum: int
    replicas: int
    most: int
    distinct: Literal["account", "host", "container", "variant"]
    same: Literal["any", "arch", "cpu-family"]
    comparator: Validator
    adaptive: bool
    canaries: float


class Project(Said):
    """A project and its policy."""

    id: str
    share: float
    priority: int
    assigned_only: bool
    image: str | None = Field(description="Of jobs that name none, in tasks made from now on.")
    notify: list[dict[str, str]]
    validation: Rule | None
    created: Instant


class Projects(Said):
    """The caller's projects, by name."""

    projects: list[Project]
