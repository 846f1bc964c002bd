"""What may stand in a job file: its fields, before anybody asks what they mean."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from source_server.domain.refusal import BadInput

MOST_ROWS = 10_000  #: written into the file itself


class Part(BaseModel):
    """A part of the file: fields that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WrittenJob(Part):
    """A job, with times and sizes in words."""

    image: str | None = None
    action: list[Any] = []
    env: dict[str, Any] = {}
    timeout: Any = None
    cpus: Any = None
    memory: Any = None
    disk: Any = None
    requires: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    outputs: list[Any] = []
    result: str | dict[str, Any] | None = None


class Entry(Part):
    """An entry of the matrix."""

    name: str
    image: str
    action: list[Any] = []
    env: dict[str, Any] = {}
    labels: dict[str, Any] = {}


class Data(Part):
    """The rows, or the file that they stand in."""

    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ROWS)] | None = None
    file: str | None = None
    rows_per_chunk: int = 1

    @model_validator(mode="after")
    def _one_of_them(self) -> Data:
        if (self.rows is None) == (self.file is None):
            raise ValueError("say either 'rows' or 'file'")
        return self


class WrittenFile(Part):
    """All of it."""

    dockercomp: Annotated[int, Field(ge=1, le=1)]
    name: str | None = None
    tree: bool = True
    main: WrittenJob
    success: WrittenJob | None = None
    failure: WrittenJob | None = None
    after: WrittenJob | None = None
    matrix: Annotated[list[Entry], Field(min_length=1)] | None = None
    run_in: Literal["every", "one"] = "every"
    data: Data | None = None
    validation: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    notify: Any = None
    priority: Any = None
    max_failed: Any = None
    after_tasks: list[Any] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> WrittenFile:
        if self.matrix and self.main.image is not None:
            raise ValueError(
                "'main' has an image and there is a 'matrix', whose entries bring theirs: say one"
            )
        if self.run_in == "one" and not (self.matrix and self.data):
            raise ValueError("'run_in: one' needs a 'matrix' and 'data'")
        return self


def as_written(said: Any) -> WrittenFile:
    """Plain values as such a file; raises BadInput with a sentence for whoever wrote it."""
    if not isinstance(said, dict):
        raise BadInput("It must begin with 'dockercomp: 1' and have a job 'main'.")
    try:
        return WrittenFile.model_validate(said)
    except ValidationError as error:
        raise BadInput(_sentence(error)) from error


_FIELDS = sorted({name for part in (WrittenFile, WrittenJob, Entry, Data) for name in part.model_fields})

#: What a value must be, for those who write YAML by hand.
_KINDS = {
    "list_type": "it is a list, such as [a, b]",
    "dict_type": "it has fields of its own, such as {name: value}",
    "model_type": "it has fields of its own, such as {name: value}",
    "bool_type": "it is true or false",
    "int_type": "it is a whole number",
    "string_type": "it is a text; put it in quotes",
}


def _sentence(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    # A field that is misspelt is missing, too: the slip is what has to be told.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = get_close_matches(str(first["loc"][-1])[:100], _FIELDS, n=1)
        return f"There is no field {where!r} in a job file." + (f" Do you mean {near[0]!r}?" if near else "")
    if where == "dockercomp":
        return "It must begin with 'dockercomp: 1', the release of this format."
    if first["type"] == "missing":
        return f"The field {where!r} is missing."
    message = _KINDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return f"The field {where!r}: {message}." if where else f"{message}."
