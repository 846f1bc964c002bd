"""What every shape of an answer is made of, and the shapes that belong to no subject."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Instant = str | None  #: RFC 3339 in UTC, or null: not yet, or not known


class Said(BaseModel):
    """An answer: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Error(BaseModel):
    """What every refusal says."""

    error: str = Field(description="One sentence for people.")


class Health(Said):
    """The server can work: its database answers."""

    ok: bool
