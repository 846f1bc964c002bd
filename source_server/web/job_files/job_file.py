"""`dockercomp.yml`: a task as a file beside the code. Read strictly; what it says becomes the body of a new task.

Its fields are those of `POST /projects/NAME/tasks` with times and sizes in words, the matrix in the place of variants,
and names of files in the place of hashes. What a field may hold is decided in one place, where that body is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from source_server.domain.refusal import BadInput
from source_server.web.job_files.amounts import mib, seconds, word
from source_server.web.job_files.written import MOST_ROWS, Entry, WrittenFile, WrittenJob, as_written
from source_server.web.job_files.yaml_text import Place, read_yaml

NAME = "dockercomp.yml"
TREE = "tree.tar"  #: name below /in of the whole of the pushed files
VARIANT = "variant"  #: the field of a row that names its entry of the matrix
_PINNED = re.compile(r"(\S+@)?sha256:[0-9a-f]{64}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_NOBODYS = "sha256:" + "0" * 64
_JOBS = ("main", "success", "failure", "after")


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
    #: The files, relative to the root of the repository, that it takes along: inputs and data.
    paths: tuple[str, ...]
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
        file = as_written(read_yaml(text, places))
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


def _without_tags(file: WrittenFile) -> WrittenFile:
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


def _job_file(file: WrittenFile) -> JobFile:
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


def _body(file: WrittenFile, jobs: Mapping[str, WrittenJob]) -> dict[str, Any]:
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


def _job(job: WrittenJob, name: str) -> dict[str, Any]:
    if job.image is not None:
        _require_pinned(job.image, name)
    body: dict[str, Any] = {
        "image": job.image,
        "action": [word(item, f"{name}.action") for item in job.action],
        "env": {key: word(value, f"{name}.env.{key}") for key, value in job.env.items()},
        "timeout_s": seconds(job.timeout, f"{name}.timeout"),
        "cpus": job.cpus,
        "memory_mb": mib(job.memory, f"{name}.memory"),
        "disk_mb": mib(job.disk, f"{name}.disk"),
        "requires": job.requires,
        "outputs": job.outputs,
        "result": {"type": job.result} if isinstance(job.result, str) else job.result,
    }
    return {key: value for key, value in body.items() if value not in (None, [], {})}


def _variant(entry: Entry) -> dict[str, Any]:
    _require_pinned(entry.image, f"matrix entry {entry.name}")
    body: dict[str, Any] = {
        "action": [word(item, f"matrix entry {entry.name}: action") for item in entry.action],
        "env": {key: word(value, f"matrix entry {entry.name}: env") for key, value in entry.env.items()},
        "labels": {
            key: word(value, f"matrix entry {entry.name}: labels") for key, value in entry.labels.items()
        },
    }
    return {"name": entry.name, "image": entry.image, **{key: value for key, value in body.items() if value}}


def _every(file: WrittenFile) -> tuple[str, ...]:
    return tuple(one.name for one in file.matrix or ()) if file.run_in == "every" else ()


def _rows(file: WrittenFile) -> Iterator[str]:
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
