"""The wire: JSON becomes checked values here, and the types that fields of messages are made of.

Volunteers' messages ignore unknown fields (`Lenient`), scientists' and operators' refuse them (`Strict`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from source_server.domain.refusal import BadInput

MAX_BODY = 16 * 1024 * 1024
INT64 = 2**63 - 1


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate") from None
    return text


@dataclass(frozen=True)
class Matching:
    """A validator with words of its own: people are not shown patterns, but `/openapi.json` is."""

    pattern: str
    sentence: str

    def __call__(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.sentence)
        return text


def matching(pattern: str, sentence: str) -> Matching:
    """Text of that form, or this sentence."""
    return Matching(pattern, sentence)


def no_nul(text: str) -> str:
    """The text, which must have no NUL and be encodable as UTF-8; raises ValueError."""
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return _encodable(text)


def _utc(moment: datetime) -> datetime:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("is beyond the years 1 to 9999 in UTC") from None


Instant = Annotated[datetime, Field(strict=False), AfterValidator(_utc)]
Text = Annotated[str, AfterValidator(_encodable)]


Uuid = Annotated[
    str, AfterValidator(matching(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "must be a UUID"))
]


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(no_nul)]


ChunkId = Annotated[
    str, AfterValidator(matching(r"[A-Za-z0-9_-]{1,64}\.[0-9]{1,15}", "must be a chunk's id"))
]


Whole = Annotated[int, Field(ge=0, le=INT64)]


class Strict(BaseModel):
    """What a scientist or an operator sends: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Lenient(BaseModel):
    """What a volunteer's client sends: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


Shape = TypeVar("Shape", bound=BaseModel)


def parse(shape: type[Shape], body: bytes) -> Shape:
    """Read a JSON body of that shape; raises BadInput with one sentence."""
    return read(shape, decode(body))


def decode(body: bytes) -> Any:
    """JSON text to plain values; raises BadInput. Lone surrogates pass here and are refused by the shapes."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BadInput("The body is not UTF-8.") from error
    except RecursionError as error:
        raise BadInput("The body's JSON is nested too deeply.") from error
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}.") from error


def read(shape: type[Shape], value: Any) -> Shape:
    """Check plain values against a shape; raises BadInput with one sentence that names the field."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise BadInput(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"].startswith(("datetime_", "timezone_")):
        message = "must be an instant with its offset, such as 2026-11-30T18:00:00Z"
    if first["type"] == "extra_forbidden":
        return f"There is no field {where!r} in this message."
    if not where and first["type"] in ("model_type", "model_attributes_type"):  # pydantic's names our classes
        return "The body must be a JSON object."
    if first["type"] == "missing":
        return f"The field {where!r} is missing."
    return f"The field {where!r}: {message}." if where else f"{message}."


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
