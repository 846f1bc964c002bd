"""What scientists and operators send: projects, tasks, rules for checking, rounds. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from source_server.web.requires import Requires
from source_server.web.wire import ChunkId, Name, Strict, Text, Uuid, matching, no_nul

MOST_CHUNKS = 1000  #: chunks named in one request of a scientist


def _not_reserved(name: str) -> str:
    if name == "all":
        raise ValueError("must not be 'all', which stands for every project")
    return name


Slug = Annotated[
    str,
    AfterValidator(
        matching(r"[a-z0-9][a-z0-9-]{0,62}", "must have 1 to 63 small letters, digits and dashes")
    ),
    AfterValidator(_not_reserved),
]
Action = Annotated[
    list[Annotated[str, StringConstraints(max_length=10_000), AfterValidator(no_nul)]],
    Field(max_length=1000),
]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Timeout = Annotated[float, Field(ge=0.001, le=30 * 86400, strict=False, allow_inf_nan=False)]


_REGISTRY = r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:[0-9]{1,5})?"
_PATH = r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"

#: An image that jobs name: by its id, or as a registry's by its digest.
JobImage = Annotated[
    str,
    StringConstraints(max_length=500),
    AfterValidator(
        matching(
            rf"({_REGISTRY}{_PATH}@)?sha256:[0-9a-f]{{64}}",
            "must be an image's id (sha256:...) or REGISTRY/NAME@sha256:..., with 64 hexadecimal digits; no tag",
        )
    ),
]


class ProgramBody(Strict):
    """What is executed, and in which image."""

    action: Action
    image: JobImage | None = None
    timeout_s: Timeout = 60.0

    @model_validator(mode="after")
    def _something(self) -> ProgramBody:
        if not self.action and self.image is None:
            raise ValueError("'action' must not be empty, unless 'image' brings a command of its own")
        return self


class ValidatorBody(ProgramBody):
    """The project's own command that compares answers."""


class ComparatorBody(Strict):
    """When two answers agree."""

    kind: Literal["exact", "json", "validator"] = "exact"
    relative: Annotated[float, Field(ge=0, le=1, strict=False, allow_inf_nan=False)] = 0.0
    absolute: Annotated[float, Field(ge=0, le=1e300, strict=False, allow_inf_nan=False)] = 0.0
    validator: ValidatorBody | None = None

    @model_validator(mode="after")
    def _fitting(self) -> ComparatorBody:
        if (self.kind == "validator") != (self.validator is not None):
            raise ValueError("kind 'validator' and the field 'validator' go together")
        if self.kind != "json" and (self.relative or self.absolute):
            raise ValueError("a tolerance needs kind 'json'")
        return self


class ValidationBody(Strict):
    """How answers are checked."""

    quorum: Annotated[int, Field(ge=1, le=8)] = 1
    replicas: Annotated[int, Field(ge=1, le=16)] | None = None
    most: Annotated[int, Field(ge=1, le=16)] | None = None
    distinct: Literal["account", "host", "container"] = "account"
    same: Literal["any", "arch", "cpu-family"] = "any"
    comparator: ComparatorBody = ComparatorBody()
    adaptive: bool = False
    canaries: Annotated[float, Field(ge=0, le=0.5, strict=False)] = 0.0

    @model_validator(mode="after")
    def _fitting(self) -> ValidationBody:
        replicas = self.quorum if self.replicas is None else self.replicas
        if replicas < self.quorum:
            raise ValueError("replicas must not be less than quorum")
        if self.most is not None and self.most < replicas:
            raise ValueError("most must not be less than replicas")
        if self.quorum == 1 and (replicas > 1 or self.adaptive or self.comparator.kind != "exact"):
            raise ValueError("replicas, adaptive and a comparator need a quorum of at least 2")
        return self


class PolicyBody(Strict):
    """`PATCH /projects/NAME`: what is named is changed."""

    share: Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)] | None = None
    assigned_only: bool | None = None
    priority: Priority | None = None
    validation: ValidationBody | None = None


class ProjectBody(PolicyBody):
    """`POST /projects`."""

    name: Slug


class TaskBody(ProgramBody):
    """`POST /projects/NAME/tasks`."""

    name: Name | None = None
    env: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")],
        Annotated[str, StringConstraints(max_length=10_000), AfterValidator(no_nul)],
    ] = Field(default_factory=dict, max_length=200)
    rows_per_chunk: Annotated[int, Field(ge=1, le=100_000)] = 1
    requires: Requires = Field(default_factory=dict)
    priority: Priority = 0
    validation: ValidationBody | None = None


class RequeueBody(Strict):
    """`POST /errors/requeue`."""

    chunks: Annotated[list[ChunkId], Field(min_length=1, max_length=MOST_CHUNKS)] | None = None
    task: Name | None = None
    signature: Annotated[Text, StringConstraints(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> RequeueBody:
        if (self.chunks is None) == (self.task is None):
            raise ValueError("Say either 'chunks' or 'task'")
        if self.chunks is not None and self.signature is not None:
            raise ValueError("'signature' goes with 'task'")
        return self


class RerunBody(Strict):
    """`POST /tasks/TASK/rerun`."""

    which: Literal["all", "failed", "suspect"] | None = None
    chunks: Annotated[list[ChunkId], Field(min_length=1, max_length=MOST_CHUNKS)] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> RerunBody:
        if (self.which is None) == (self.chunks is None):
            raise ValueError("Say either 'which' or 'chunks'")
        return self


class ClearHostBody(Strict):
    """`POST /hosts/clear`."""

    account: Name
    host: Uuid


class EmptyBody(Strict):
    """Calls that take nothing: an empty body, or `{}`."""
