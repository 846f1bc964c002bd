"""The wire: every message's shape and every field's name, once. JSON comes in here and goes out here.

Volunteers' messages ignore unknown fields (`Lenient`), scientists' and operators' refuse them (`Strict`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from source_server.domain.refusal import BadInput
from source_server.domain.timing import instant as instant

MAX_BODY = 16 * 1024 * 1024
MAX_STDOUT = 256 * 1024
MAX_STDERR_TAIL = 8 * 1024
MAX_LABELS = 4096  #: letters of all of a container's labels, or of its resources
MAX_RESULTS = 1000  #: attempts in one request
MAX_WHY = 300  #: letters that are kept of a reason that a container gives

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
Number = (
    Annotated[int, Field(ge=-INT64, le=INT64)]
    | Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
)
Whole = Annotated[int, Field(ge=0, le=INT64)]
Image = Annotated[
    str,
    AfterValidator(
        matching(r"sha256:[0-9a-f]{64}", "must be an image's id, sha256: and 64 hexadecimal digits")
    ),
]


class Strict(BaseModel):
    """What a scientist or an operator sends: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Lenient(BaseModel):
    """What a volunteer's client sends: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class HostBody(Lenient):
    """A volunteer's machine."""

    id: Uuid
    name: Name | None = None


class ProtocolBody(Lenient):
    """Read before all else, so that a client of another protocol is told so and not that its fields are wrong."""

    protocol: Whole


def _small(named: dict[str, Any]) -> dict[str, Any]:
    if sum(len(name) + len(str(value)) for name, value in named.items()) > MAX_LABELS:
        raise ValueError(f"must not have more than {MAX_LABELS} letters in all")
    return named


class VolunteerPolicyBody(Lenient):
    """What the volunteer allows, as far as the scheduler has to know."""

    projects: Annotated[list[Name], Field(max_length=1000)] | None = None
    shares: dict[Name, Annotated[float, Field(ge=0, le=1000, strict=False)]] = Field(
        default_factory=dict, max_length=1000
    )


class RegisterBody(ProtocolBody):
    """`POST /containers`."""

    id: Uuid
    host: HostBody
    labels: Annotated[dict[Name, Name | Number], Field(max_length=64), AfterValidator(_small)] = {}
    resources: Annotated[
        dict[Name, Annotated[float, Field(ge=0, le=1e12, strict=False)]],
        Field(max_length=64),
        AfterValidator(_small),
    ] = {}
    runtimes: Annotated[list[Name], Field(max_length=8)] = ["process"]
    image: Image | None = None
    policy: VolunteerPolicyBody = VolunteerPolicyBody()
    self_test: Literal["passed", "failed", "unknown"] = "unknown"


def _one_line(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MAX_WHY]


class HeartbeatBody(Lenient):
    """`POST /heartbeat`."""

    life: Uuid
    beat: Whole
    held: dict[Uuid, Whole] = Field(default_factory=dict, max_length=1000)
    started: Annotated[list[ChunkId], Field(max_length=1000)] = []
    paused: bool = False
    cannot: dict[Name, Annotated[str, AfterValidator(_one_line)]] = Field(default_factory=dict, max_length=16)


class FileBody(Lenient):
    """A file that an attempt left in /out."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=1024)]
    sha256: Annotated[str, AfterValidator(matching(r"[0-9a-f]{64}", "must be a SHA-256 in small letters"))]
    bytes: Whole


class AttemptBody(Lenient):
    """One attempt, in `POST /add` and `POST /next`."""

    chunk: ChunkId
    run: Whole
    token: Uuid
    ticket: Annotated[Text, StringConstraints(max_length=200)]
    outcome: Literal["ok", "failed", "timeout", "oom", "output_limit", "engine"]
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**32)] | None = None
    signal: Annotated[int, Field(ge=0, le=256)] | None = None
    stdout: Text = ""
    stderr_tail: Text = ""
    started: Instant
    ended: Instant
    cpu_s: Annotated[float, Field(ge=0, le=1e12, strict=False, allow_inf_nan=False)] = 0.0
    runtime: Name = "process"
    image: Annotated[str, StringConstraints(max_length=500), AfterValidator(no_nul)] | None = None
    files: Annotated[list[FileBody], Field(max_length=1000)] = []


class NextBody(Lenient):
    """`POST /next`; the attempts are looked at one by one."""

    token: Uuid
    want: Whole
    results: Annotated[list[Any], Field(max_length=MAX_RESULTS)] = []


class AddBody(Lenient):
    """`POST /add`; the attempts are looked at one by one."""

    results: Annotated[list[Any], Field(min_length=1, max_length=MAX_RESULTS)]


class ReleaseBody(Lenient):
    """`POST /release`."""

    chunks: Annotated[list[ChunkId], Field(max_length=10_000)]


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
    if first["type"] == "extra_forbidden":
        return f"There is no field {where!r} in this message."
    if first["type"] == "missing":
        return f"The field {where!r} is missing."
    return f"The field {where!r}: {message}." if where else f"{message}."


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
