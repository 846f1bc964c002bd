"""What somebody sends who wants something calculated."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

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
