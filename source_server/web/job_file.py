"""`dockercomp.yml`: a task as a file beside the code. Read strictly; what it says becomes the body of a new task.

Its fields are those of `POST /projects/NAME/tasks` with times and sizes in words, the matrix in the place of variants,
and names of files in the place of hashes. What a field may hold is decided in one place, where that body is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from source_server.domain.refusal import BadInput
from source_server.web.yaml_text import Place, read_yaml

NAME = "dockercomp.yml"
TREE = "tree.tar"  #: name below /in of the whole of the pushed files
VARIANT = "variant"  #: the field of a row that names its entry of the matrix
MOST_ROWS = 10_000  #: written into the file itself
_PINNED = re.compile(r"(\S+@)?sha256:[0-9a-f]{64}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_NOBODYS = "sha256:" + "0" * 64
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MIB = {"m": 1, "g": 1024, "t": 1024 * 1024}
_JOBS = ("main", "success", "failure", "after")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Job(_Part):
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


class _Entry(_Part):
    name: str
    image: str
    action: list[Any] = []
    env: dict[str, Any] = {}
    labels: dict[str, Any] = {}


class _Data(_Part):
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ROWS)] | None = None
    file: str | None = None
    rows_per_chunk: int = 1

    @model_validator(mode="after")
    def _one_of_them(self) -> _Data:
        if (self.rows is None) == (self.file is None):
            raise ValueError("say either 'rows' or 'file'")
        return self


class _File(_Part):
    dockercomp: Annotated[int, Field(ge=1, le=1)]
    name: str | None = None
    tree: bool = True
    main: _Job
    success: _Job | None = None
    failure: _Job | None = None
    after: _Job | None = None
    matrix: Annotated[list[_Entry], Field(min_length=1)] | None = None
    run_in: Literal["every", "one"] = "every"
    data: _Data | None = None
    validation: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    notify: Any = None
    priority: Any = None
    max_failed: Any = None
    after_tasks: list[Any] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> _File:
        if self.matrix and self.main.image is not None:
            raise ValueError(
                "'main' has an image and there is a 'matrix', whose entries bring theirs: say one"
            )
        if self.run_in == "one" and not (self.matrix and self.data):
            raise ValueError("'run_in: one' needs a 'matrix' and 'data'")
        return self


@dataclass(frozen=True, kw_only=True)
class ImagePlace:
    """An image in the text of a job file: its letters from `start` to before `end`, quotes included."""

    image: str
    start: int
    end: int
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """What a job file asks for."""

    body: Mapping[str, Any]  #: of the new task, but for the hashes of its files
    paths: tuple[
        str, ...
    ]  #: the files, relative to the root of the repository, that it takes along: inputs and data
    tree: bool  #: whether its jobs get the whole tree, as /in/tree.tar
    rows: tuple[str, ...] = ()  #: its rows as JSON text; empty: they come from `data_file`
    data_file: str | None = None
    in_every: tuple[str, ...] = ()  #: the entries of the matrix that each row of `data_file` runs in
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: job -> name below /in -> path
    images: tuple[ImagePlace, ...] = ()


def read_job_file(text: bytes | str, *, tags: bool = False) -> JobFile:
    """The job file with this text; raises BadInput with a sentence for whoever wrote it.

    `tags`: images that are not pinned are let pass, as an image that nobody has.
    """
    places: list[Place] = []
    try:
        said = read_yaml(text, places)
        if not isinstance(said, dict):
            raise BadInput("It must begin with 'dockercomp: 1' and have a job 'main'.")
        try:
            file = _File.model_validate(said)
        except ValidationError as error:
            raise BadInput(_sentence(error)) from error
        return replace(_job_file(_without_tags(file) if tags else file), images=_images(places))
    except BadInput as error:
        raise BadInput(f"{NAME}: {error}") from error


def _images(places: Iterable[Place]) -> tuple[ImagePlace, ...]:
    return tuple(
        ImagePlace(image=one.value, start=one.start, end=one.end, pinned=bool(_PINNED.fullmatch(one.value)))
        for one in places
        if one.path[-1:] == ("image",)
        and (one.path[:-1] in [(job,) for job in _JOBS] or (len(one.path) == 3 and one.path[0] == "matrix"))
    )


def _without_tags(file: _File) -> _File:
    """The same, with an image that nobody has in the place of those that are not pinned."""

    def pinned(image: str | None) -> str | None:
        return image if image is None or _PINNED.fullmatch(image) else _NOBODYS

    for job in (file.main, file.success, file.failure, file.after, *(file.matrix or ())):
        if job is not None:
            job.image = pinned(job.image)
    return file


def task_body(
    file: JobFile,
    *,
    files: Mapping[str, str],
    tree: str | None,
    task_id: str | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The body of the new task. `files` are the hashes of what `paths` names, `tree` that of the whole; `env` is added.

    Raises BadInput for a path without a hash.
    """
    body = json.loads(json.dumps(file.body))
    for name in _JOBS:
        job = body if name == "main" else body.get(name)
        if job is None:
            continue
        inputs = {below: _hash(path, files) for below, path in file.inputs.get(name, {}).items()}
        if file.tree and tree is not None:
            inputs = {TREE: tree, **inputs}
        if inputs:
            job["inputs"] = inputs
        if env:
            job["env"] = {**job.get("env", {}), **env}
    if task_id is not None:
        body["id"] = task_id
    return dict(body)


def _hash(path: str, files: Mapping[str, str]) -> str:
    literal = _HASH.fullmatch(path)
    if literal is not None:
        return literal.group(1)
    if path not in files:
        raise BadInput(f"{NAME}: there is no file {path!r} with it.")
    return files[path]


def _job_file(file: _File) -> JobFile:
    jobs = {name: job for name in _JOBS if (job := getattr(file, name)) is not None}
    inputs = {name: {below: _path(path) for below, path in job.inputs.items()} for name, job in jobs.items()}
    if file.tree and any(TREE in one for one in inputs.values()):
        raise BadInput(
            f"'inputs' names {TREE}, which is the whole tree; write 'tree: false' or another name."
        )
    data = None if file.data is None or file.data.file is None else _data_path(file.data.file)
    named = [path for one in inputs.values() for path in one.values() if not _HASH.fullmatch(path)]
    return JobFile(
        body=_body(file, jobs),
        paths=tuple(dict.fromkeys([*named, *([data] if data else [])])),
        tree=file.tree,
        rows=() if data else tuple(_rows(file)),
        data_file=data,
        in_every=_every(file) if data else (),
        inputs=inputs,
    )


def _body(file: _File, jobs: Mapping[str, _Job]) -> dict[str, Any]:
    body = _job(jobs["main"], "main")
    if file.matrix:
        body["variants"] = [_variant(one) for one in file.matrix]
        if file.run_in == "every":
            body["variant_field"] = VARIANT
    for name, job in jobs.items():
        if name != "main":
            body[name] = _job(job, name)
    if file.data is not None and file.data.rows_per_chunk != 1:
        body["rows_per_chunk"] = file.data.rows_per_chunk
    for name in ("name", "validation", "limits", "notify", "priority", "max_failed", "after_tasks"):
        if (value := getattr(file, name)) is not None:
            body[name] = value
    return body


def _job(job: _Job, name: str) -> dict[str, Any]:
    if job.image is not None:
        _require_pinned(job.image, name)
    body: dict[str, Any] = {
        "image": job.image,
        "action": [_word(item, f"{name}.action") for item in job.action],
        "env": {key: _word(value, f"{name}.env.{key}") for key, value in job.env.items()},
        "timeout_s": _seconds(job.timeout, f"{name}.timeout"),
        "cpus": job.cpus,
        "memory_mb": _mib(job.memory, f"{name}.memory"),
        "disk_mb": _mib(job.disk, f"{name}.disk"),
        "requires": job.requires,
        "outputs": job.outputs,
        "result": {"type": job.result} if isinstance(job.result, str) else job.result,
    }
    return {key: value for key, value in body.items() if value not in (None, [], {})}


def _variant(entry: _Entry) -> dict[str, Any]:
    _require_pinned(entry.image, f"matrix entry {entry.name}")
    body: dict[str, Any] = {
        "action": [_word(item, f"matrix entry {entry.name}: action") for item in entry.action],
        "env": {key: _word(value, f"matrix entry {entry.name}: env") for key, value in entry.env.items()},
        "labels": {
            key: _word(value, f"matrix entry {entry.name}: labels") for key, value in entry.labels.items()
        },
    }
    return {"name": entry.name, "image": entry.image, **{key: value for key, value in body.items() if value}}


def _every(file: _File) -> tuple[str, ...]:
    return tuple(one.name for one in file.matrix or ()) if file.run_in == "every" else ()


def _rows(file: _File) -> Iterator[str]:
    """The rows as JSON text: those written down, once for each entry of the matrix."""
    alone: dict[str, Any] = {} if file.matrix else {"run": 1}  # a row has a field, if only to be one
    written = [alone] if file.data is None or file.data.rows is None else file.data.rows
    every = _every(file)
    if every and len(every) * len(written) > MOST_ROWS:
        raise BadInput(f"'matrix' and 'data' make {len(every) * len(written)} rows, more than {MOST_ROWS}.")
    for row in written:
        if every and VARIANT in row:
            raise BadInput(
                f"A row has the field {VARIANT!r}, which names its entry of the matrix; rename it."
            )
        for name in every or (None,):
            yield json.dumps(row if name is None else {VARIANT: name, **row}, ensure_ascii=False)


def _require_pinned(image: str, where: str) -> None:
    if not _PINNED.fullmatch(image):
        raise BadInput(
            f"The image {image!r} of {where} is not pinned: what it names may be another image tomorrow. "
            f"Write its digest into the file with: dockercomp pin {NAME}"
        )


def _word(value: Any, where: str) -> str:
    """A text, or a number as it would be typed; nothing that YAML might have meant otherwise."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise BadInput(f"{where} must be a text; write it in quotes.")


def _amount(value: Any, units: Mapping[str, float], where: str, like: str) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([a-z])b?", str(value).lower())
    if found is None or found.group(2) not in units:
        raise BadInput(f"{where} must be like {like}, not {value!r}.")
    return float(found.group(1)) * units[found.group(2)]


def _seconds(value: Any, where: str) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return _amount(value, _SECONDS, where, "90s, 10m, 2h or 1d")


def _mib(value: Any, where: str) -> int | None:
    if isinstance(value, int | float):
        raise BadInput(f"{where} must have its unit, like 512m or 2g, not {value!r}.")
    amount = _amount(value, _MIB, where, "512m or 2g")
    return None if amount is None else max(1, math.ceil(amount))


def _data_path(path: str) -> str:
    if not path.lower().endswith((".csv", ".jsonl")):
        raise BadInput(f"data.file {path!r} must end in .csv or .jsonl.")
    return _path(path)


def _path(path: str) -> str:
    """A path in the tree, as it is; a hash too. Raises BadInput for one that leads out of it."""
    parts = path.split("/")
    if path.startswith("sha256:"):
        if not _HASH.fullmatch(path):
            raise BadInput(f"{path!r} must be sha256: and 64 hexadecimal digits, or the path of a file.")
        return path
    if not all(part not in ("", ".", "..") for part in parts) or not path.isprintable() or len(path) > 1000:
        raise BadInput(
            f"The path {path!r} must be relative to the root of the repository and stay in it, like data/rows.csv."
        )
    return path


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no field {where!r} in a job file."
    if where == "dockercomp":
        return "It must begin with 'dockercomp: 1', the release of this format."
    if first["type"] == "missing":
        return f"The field {where!r} is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"The field {where!r}: {message}." if where else f"{message}."
