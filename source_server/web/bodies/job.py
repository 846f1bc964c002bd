"""A job as it is wished for: what is executed, in which image or images, with which files, and what its answer is."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from source_server.domain.file_names import could_match
from source_server.domain.job import MOST_VARIANTS, Job, ResultKind, ResultType, Variant
from source_server.domain.result_type import require_schema
from source_server.web.bodies.requires import Requires, requirements
from source_server.web.wire import Name, Strict, matching, no_nul

MOST_FILES = 1000

Action = Annotated[
    list[Annotated[str, StringConstraints(max_length=10_000), AfterValidator(no_nul)]],
    Field(max_length=1000),
]
Timeout = Annotated[float, Field(ge=0.001, le=30 * 86400, strict=False, allow_inf_nan=False)]
Env = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")],
        Annotated[str, StringConstraints(max_length=10_000), AfterValidator(no_nul)],
    ],
    Field(max_length=200),
]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(no_nul)]

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
VariantName = Annotated[
    str,
    AfterValidator(
        matching(
            r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
            "must have 1 to 64 letters, digits, dots, dashes and underscores",
        )
    ),
]


class ResultBody(Strict):
    """What a job's answer must be."""

    type: Literal["text", "number", "json", "files"] = "text"
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    """JSON Schema (draft 2020-12), for `json`."""

    @model_validator(mode="after")
    def _fitting(self) -> ResultBody:
        if self.schema_ is not None and self.type != "json":
            raise ValueError("a schema needs the type 'json'")
        if self.schema_ is not None:
            require_schema(json.dumps(self.schema_))
        return self


class VariantBody(Strict):
    """One of a job's images, and what is different there."""

    name: VariantName
    image: JobImage
    action: Action = Field(default_factory=list)
    env: Env = Field(default_factory=dict)
    labels: dict[Name, Name] = Field(default_factory=dict, max_length=16)


class ProgramBody(Strict):
    """What is executed, and in which image."""

    action: Action = Field(default_factory=list)
    """The whole command line; `{field}` stands for a field of the row. Empty: the image's own command."""
    image: JobImage | None = None
    """An image's id, or REGISTRY/NAME@sha256:...; none: the project's, or any container."""
    timeout_s: Timeout = 60.0
    """Seconds for one chunk."""

    @model_validator(mode="after")
    def _something(self) -> ProgramBody:
        if not self.action and not self._has_image():
            raise ValueError("'action' must not be empty, unless 'image' brings a command of its own")
        return self

    def _has_image(self) -> bool:
        return self.image is not None


class JobBody(ProgramBody):
    """A job: of a task, or a reaction to how it ended."""

    env: Env = Field(default_factory=dict)
    """Environment of the program; volunteers can read it."""
    requires: Requires = Field(default_factory=dict)
    """Labels and resources that a container must have: a value, a list of values, or `{"at_least": n}`."""
    cpus: Annotated[float, Field(ge=0.01, le=4096, strict=False, allow_inf_nan=False)] | None = None
    """Processors that one attempt needs, and may use."""
    memory_mb: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """Memory, likewise."""
    disk_mb: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """Disk space, likewise."""
    inputs: dict[FileName, Annotated[str, StringConstraints(min_length=1, max_length=1000)]] = Field(
        default_factory=dict, max_length=MOST_FILES
    )
    """Files for `/in`: name to SHA-256 of a blob; both may have `{field}` placeholders."""
    outputs: list[FileName] = Field(default_factory=list, max_length=100)
    """Patterns of files below `/out` that are kept."""
    result: ResultBody = ResultBody()
    variants: list[VariantBody] = Field(default_factory=list, max_length=MOST_VARIANTS)
    """Several images, in the place of `image`."""
    variant_field: Name | None = None
    """The field of the row that names its variant; none: any of them."""

    def _has_image(self) -> bool:
        return self.image is not None or bool(self.variants)

    @field_validator("outputs")
    @classmethod
    def _relative(cls, outputs: list[str]) -> list[str]:
        for pattern in outputs:
            if not could_match(pattern):
                raise ValueError(
                    f"a pattern is relative to /out, such as plots/*.png, and not {pattern[:100]!r}"
                )
        return outputs

    @field_validator("variants")
    @classmethod
    def _named_apart(cls, variants: list[VariantBody]) -> list[VariantBody]:
        if len({one.name for one in variants}) < len(variants):
            raise ValueError("two variants have the same name")
        return variants

    @model_validator(mode="after")
    def _one_way(self) -> JobBody:
        if self.variants and self.image is not None:
            raise ValueError("'image' and 'variants' exclude each other")
        if self.variant_field is not None and not self.variants:
            raise ValueError("'variant_field' needs 'variants'")
        if self.result.type == "files" and not self.outputs:
            raise ValueError("a result of type 'files' needs 'outputs'")
        return self


def job(body: JobBody) -> Job:
    """The job that these wishes make."""
    schema = body.result.schema_
    return Job(
        action=tuple(body.action),
        own_command=not body.action,
        image=body.image,
        env=dict(body.env),
        timeout_s=body.timeout_s,
        requires=requirements(body.requires),
        cpus=body.cpus,
        memory_mb=body.memory_mb,
        disk_mb=body.disk_mb,
        inputs=tuple(body.inputs.items()),
        outputs=tuple(body.outputs),
        result=ResultType(
            kind=ResultKind(body.result.type), schema=None if schema is None else json.dumps(schema)
        ),
        variants=tuple(_variant(one) for one in body.variants),
        variant_field=body.variant_field,
    )


def _variant(body: VariantBody) -> Variant:
    return Variant(
        name=body.name,
        image=body.image,
        action=tuple(body.action),
        env=dict(body.env),
        labels=dict(body.labels),
    )
