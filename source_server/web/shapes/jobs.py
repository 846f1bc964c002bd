"""The shapes of jobs in answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from source_server.web.shapes.base import Said


class Manifest(Said):
    """What a client needs to execute a job."""

    image: str | None
    action: list[str]
    env: dict[str, str]
    timeout_s: float
    rows: int | None = Field(description="Rows of a whole chunk; null: one row, without a list around it.")


class ResultType(Said):
    """What an answer must be; absent: text."""

    type: Literal["text", "number", "json", "files"]
    schema_: Any = Field(default=None, alias="schema", description="JSON Schema (draft 2020-12).")


class Variant(Said):
    """One of a job's images, and what is different there."""

    name: str
    image: str
    action: list[str] | None = None
    env: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Job(Manifest):
    """What is executed, with all that was said of it."""

    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    inputs: dict[str, str] | None = None
    outputs: list[str] | None = None
    result: ResultType | None = None
    variants: list[Variant] | None = None
    variant_field: str | None = None


class Reaction(Job):
    """What is executed once the outcome is known."""

    requires: dict[str, Any]


class Reactions(Said):
    """The jobs that run once the outcome of a task is known."""

    success: Reaction | None = None
    failure: Reaction | None = None
    after: Reaction | None = None


class File(Said):
    """A file with a name below /in or /out."""

    name: str
    sha256: str
    bytes: int
