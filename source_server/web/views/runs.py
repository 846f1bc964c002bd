"""Job files from a scientist's own machine: read by the same parser as those of pushes, checked or run."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import AfterValidator, Field, StringConstraints

from source_server.domain.account import Account, Role
from source_server.domain.refusal import BadInput, Conflict, Refusal, Unavailable
from source_server.domain.task import Task, TaskState
from source_server.domain.wish import Wish, require_sound
from source_server.web import wire
from source_server.web.answers import tasks as answers
from source_server.web.bodies import wishes
from source_server.web.bodies.task_wish import wish
from source_server.web.http.access import account_as, services
from source_server.web.job_files.job_file import JobFile, read_job_file, task_body
from source_server.web.job_files.rows import kind_of, lines_of
from source_server.web.job_files.yaml_text import MOST_BYTES
from source_server.web.openapi import Caller, described
from source_server.web.shapes import base as shapes
from source_server.web.shapes.tasks import WarnedTask
from source_server.web.wire import matching

blueprint = Blueprint("runs", __name__)

UPLOAD = "job-file"  #: the id of the one upload of such a task
_ANY_HASH = "0" * 64

Sha256 = Annotated[str, AfterValidator(matching("[0-9a-f]{64}", "must be a SHA-256, 64 hexadecimal digits"))]
JobFileText = Annotated[str, StringConstraints(max_length=MOST_BYTES)]


class JobFileBody(wire.Strict):
    """`POST /job-files/check`."""

    file: JobFileText


class RunBody(JobFileBody):
    """`POST /projects/NAME/runs`: the text of a job file, and the hashes of the blobs that it takes along."""

    id: wishes.TaskId | None = None
    files: Annotated[dict[str, Sha256], Field(max_length=2000)] = {}  # noqa: RUF012  # pydantic copies it
    tree: Sha256 | None = None


class NamedImage(shapes.Said):
    """An image in the text: its letters from `start` to before `end`, quotes included."""

    image: str
    start: int
    end: int
    pinned: bool


class CheckedJobFile(shapes.Said):
    """What a job file asks for."""

    #: The body of its task, as POST /projects/NAME/tasks takes it, without the files' hashes.
    task: dict[str, Any]
    files: list[str]  #: the files that it takes along, relative to the root of the repository
    data_file: str | None
    tree: bool
    rows: int | None  #: None: as many as its data file has
    images: list[NamedImage]


@blueprint.post("/job-files/check")
@described(
    Caller.SCIENTIST,
    body=JobFileBody,
    answers={200: CheckedJobFile},
    example={"file": "dockercomp: 1\nmain:\n  action: [echo, hello]\n"},
)
def check_job_file() -> Response:
    """Read a job file, and say what it asks for; nothing is made. Tags of images pass, and are listed."""
    account_as(Role.SCIENTIST)
    body = wire.parse(JobFileBody, request.get_data())
    file = read_job_file(body.file, tags=True)
    whole = task_body(file, files=dict.fromkeys(file.paths, _ANY_HASH), tree=_ANY_HASH)
    require_sound(wish("", wire.read(wishes.TaskBody, whole)))
    rows = len(file.rows) if file.data_file is None else None
    return jsonify(
        task=dict(file.body),
        files=list(file.paths),
        data_file=file.data_file,
        tree=file.tree,
        rows=rows,
        images=[asdict(one) for one in file.images],
    )


@blueprint.post("/projects/<project>/runs")
@described(
    Caller.SCIENTIST,
    body=RunBody,
    answers={201: WarnedTask, 200: WarnedTask},
    refuses=(409,),
    example={"file": "dockercomp: 1\nmain:\n  action: [echo, hello]\n"},
)
def run_job_file(project: str) -> tuple[Response, int]:
    """Make and start the task of a job file; with an id, the same again is the same task."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(RunBody, request.get_data())
    file = read_job_file(body.file)
    if file.data_file is not None:
        services().blobs.require(account.id, _data_of(file, body))
    wished = task_body(file, files=body.files, tree=body.tree, task_id=body.id)
    task, new = services().tasks.add(account, project, _wish(project, wished, body))
    if task.cancelled:
        raise Conflict(f"The task {task.id} has been cancelled; give this one another id.")
    if task.state is TaskState.WAITING:
        _load(account, task, file, body)
    task = services().tasks.start(account, task.id)
    made = answers.task_report(services().tasks.report(task))
    return jsonify({**made, "warnings": services().warn([task])}), 201 if new else 200


def _wish(project: str, wished: dict[str, Any], body: RunBody) -> Wish:
    """The wish; what tells it from others of its id are its rows, too."""
    made = wish(project, wire.read(wishes.TaskBody, wished))
    said = json.dumps([made.digest, body.model_dump(exclude={"id"})], sort_keys=True)
    return replace(made, digest=hashlib.sha256(said.encode()).hexdigest())


def _data_of(file: JobFile, body: RunBody) -> str:
    sha256 = body.files.get(file.data_file or "")
    if sha256 is None:
        raise BadInput(f"'files' has no hash of {file.data_file}, which the job file takes its rows from.")
    return sha256


def _load(account: Account, task: Task, file: JobFile, body: RunBody) -> None:
    with ExitStack() as opened:
        try:
            data = None
            if file.data_file is not None:
                reading = services().blobs.reading(_data_of(file, body), account.id, reader=account.id)
                _, data = opened.enter_context(reading)
            services().upload(task, UPLOAD, kind_of(file), lines_of(file, data))
        except Unavailable:
            raise
        except Refusal:
            services().tasks.cancel(account, task.id)  # without its data it is of no use to anybody
            raise
