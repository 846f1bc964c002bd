"""What client containers send (docs/protocol.md). Unknown fields are ignored: volunteers run last year's client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.chunk import ChunkFile
from source_server.domain.one_line import one_line
from source_server.web.wire import INT64, ChunkId, Instant, Lenient, Name, Text, Uuid, Whole, matching, no_nul

MAX_STDOUT = 256 * 1024
MAX_STDERR_TAIL = 8 * 1024
MAX_LABELS = 4096  #: letters of all of a container's labels, or of its resources
MAX_RESULTS = 1000  #: attempts in one request
MAX_WHY = 300  #: letters that are kept of a reason that a container gives


Number = (
    Annotated[int, Field(ge=-INT64, le=INT64)]
    | Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
)


Image = Annotated[
    str,
    AfterValidator(
        matching(r"sha256:[0-9a-f]{64}", "must be an image's id, sha256: and 64 hexadecimal digits")
    ),
]


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
    labels: Annotated[dict[Name, Name | Number], AfterValidator(_small)] = Field(default={}, max_length=64)
    resources: Annotated[
        dict[Name, Annotated[float, Field(ge=0, le=1e12, strict=False)]],
        AfterValidator(_small),
    ] = Field(default={}, max_length=64)
    runtimes: list[Name] = Field(default=["process"], max_length=8)
    image: Image | None = None
    features: list[Annotated[Name, StringConstraints(max_length=60)]] = Field(default=[], max_length=64)
    policy: VolunteerPolicyBody = VolunteerPolicyBody()
    self_test: Literal["passed", "failed", "unknown"] = "unknown"


def _why(text: str) -> str:
    return one_line(text)[:MAX_WHY]


class HeartbeatBody(Lenient):
    """`POST /heartbeat`."""

    life: Uuid
    beat: Whole
    held: dict[Uuid, Whole] = Field(default_factory=dict, max_length=1000)
    started: list[ChunkId] = Field(default=[], max_length=1000)
    paused: bool = False
    cannot: dict[Name, Annotated[str, AfterValidator(_why)]] = Field(default_factory=dict, max_length=16)


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
    files: list[FileBody] = Field(default=[], max_length=1000)


class NextBody(Lenient):
    """`POST /next`; the attempts are looked at one by one."""

    token: Uuid
    want: Whole
    results: list[Any] = Field(default=[], max_length=MAX_RESULTS)


class AddBody(Lenient):
    """`POST /add`; the attempts are looked at one by one."""

    results: Annotated[list[Any], Field(min_length=1, max_length=MAX_RESULTS)]


class ReleaseBody(Lenient):
    """`POST /release`."""

    chunks: Annotated[list[ChunkId], Field(max_length=10_000)]


def attempt(body: AttemptBody) -> Attempt:
    """A container's attempt as a value of the domain."""
    files = tuple(ChunkFile(name=one.name, sha256=one.sha256, bytes=one.bytes) for one in body.files)
    return Attempt(**{**body.model_dump(), "outcome": Outcome(body.outcome), "files": files})
