"""What scientists call: projects, tasks, data, assigning, errors."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.account import Account, Role
from source_server.domain.refusal import BadInput
from source_server.domain.table import MAX_LINE
from source_server.domain.task import Job
from source_server.web import answers, wire
from source_server.web.access import account_as, any_account, services

blueprint = Blueprint("scientist", __name__)

PAGE = 100  #: errors in one answer, unless asked otherwise
LARGEST_PAGE = 1000


@blueprint.post("/projects")
def add_project() -> tuple[Response, int]:
    """Make a project; the same name by the same account again is the same project."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wire.ProjectBody, request.get_data())
    made = services().tasks.add_project(account, body.name)
    return jsonify(id=body.name), 201 if made else 200


@blueprint.get("/projects")
def list_projects() -> Response:
    """The caller's projects; every one for an admin."""
    account = account_as(Role.SCIENTIST)
    return jsonify(projects=[{"id": name} for name in services().tasks.project_names(account)])


@blueprint.post("/projects/<project>/tasks")
def add_task(project: str) -> tuple[Response, int]:
    """Make a waiting task."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wire.TaskBody, request.get_data())
    job = Job(action=tuple(body.action), image=body.image, env=dict(body.env), timeout_s=body.timeout_s)
    task = services().tasks.add(
        account, project, name=body.name or project, job=job, rows_per_chunk=body.rows_per_chunk
    )
    return jsonify(answers.task_report(services().tasks.report(task))), 201


@blueprint.get("/tasks")
def list_tasks() -> Response:
    """The caller's tasks, `?project=` only one project's."""
    account = account_as(Role.SCIENTIST)
    tasks = services().tasks.of(account, request.args.get("project"))
    return jsonify(tasks=[answers.task(task) for task in tasks])


@blueprint.get("/tasks/<task_id>")
def get_task(task_id: str) -> Response:
    """A task and how far it is."""
    return _report(account_as(Role.SCIENTIST), task_id)


@blueprint.put("/tasks/<task_id>/chunks/<upload_id>")
def upload(task_id: str, upload_id: str) -> tuple[Response, int]:
    """Receive the task's data as a stream; all of it or nothing."""
    account = account_as(Role.SCIENTIST)
    task = services().tasks.get(account, task_id)
    if not (0 < len(upload_id) <= 100 and upload_id.isascii() and upload_id.isprintable()):
        raise BadInput("An upload's id has 1 to 100 printable ASCII characters.")
    # A stream in constant memory: no limit on the whole. None would mean the app's limit to Flask.
    request.max_content_length = sys.maxsize
    received = services().upload(task, upload_id, request.mimetype, _body_lines())
    return jsonify(upload=received.id, chunks=received.chunks, rows=received.rows), 201


@blueprint.post("/tasks/<task_id>/<any(start, pause, resume, cancel):verb>")
def steer_task(task_id: str, verb: str) -> Response:
    """Start a waiting task, close or open its pause gate, or cancel it."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    tasks = services().tasks
    if verb == "start":
        tasks.start(account, task_id)
    elif verb == "cancel":
        tasks.cancel(account, task_id)
    else:
        tasks.pause(account, task_id, paused=verb == "pause")
    return _report(account, task_id)


@blueprint.post("/assign/all")
def assign_all() -> tuple[Response, int]:
    """Start and deal all of the caller's sealed tasks."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    return _deal(account, services().tasks.own_projects(account))


@blueprint.post("/assign/<project>")
def assign_project(project: str) -> tuple[Response, int]:
    """Start and deal one project's sealed tasks."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    services().tasks.require_project(account, project)
    return _deal(account, [project])


@blueprint.get("/deals/<deal_id>")
def get_deal(deal_id: str) -> Response:
    """What a deal did so far."""
    account = account_as(Role.SCIENTIST)
    return jsonify(answers.deal(services().assign.report(services().assign.of(account, deal_id))))


@blueprint.get("/errors")
def errors() -> Response:
    """The caller's failed attempts, `?task=` only one task's; `?after=ID` goes on behind that one."""
    account = account_as(Role.SCIENTIST)
    found = services().look.errors(
        services().tasks.ids(account, request.args.get("task")),
        after=request.args.get("after"),
        limit=_limit(),
    )
    pseudonyms = services().look.pseudonyms(document["account"] for document in found)
    return jsonify(errors=[answers.error(document, pseudonyms) for document in found])


@blueprint.get("/containers")
def containers() -> Response:
    """Client containers: a volunteer's own; all of them for scientists and admins."""
    account = any_account()
    found = services().look.containers(account)
    pseudonyms = services().look.pseudonyms(one.account for one in found)
    shown = [answers.container(one, pseudonyms, own=account.role is not Role.SCIENTIST) for one in found]
    return jsonify(containers=shown)


def _report(account: Account, task_id: str) -> Response:
    tasks = services().tasks
    return jsonify(answers.task_report(tasks.report(tasks.get(account, task_id))))


def _deal(account: Account, projects: list[str] | None) -> tuple[Response, int]:
    report = services().assign(account.id, projects)
    return jsonify(answers.deal(report)), 200 if report.deal.done else 202


def _nothing_in_body() -> None:
    if request.get_data():
        wire.parse(wire.EmptyBody, request.get_data())


def _body_lines() -> Iterator[bytes]:
    told, got = request.content_length, 0
    # Unbuffered, the stream reads a line byte by byte.
    with io.BufferedReader(cast(io.RawIOBase, request.stream), 64 * 1024) as body:
        while line := body.readline(MAX_LINE + 1):
            got += len(line)
            yield line
    # A connection that breaks off looks like the end of the body: a part must never pass for the whole.
    if told is not None and got < told:
        raise ClientDisconnected()


def _limit() -> int:
    text = request.args.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= LARGEST_PAGE):
        raise BadInput(f"limit is a whole number from 1 to {LARGEST_PAGE}.")
    return int(text)
