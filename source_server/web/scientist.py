"""What scientists call: tasks, data, assigning, errors."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.account import Account, Role
from source_server.domain.dealing import By
from source_server.domain.refusal import BadInput
from source_server.domain.table import MAX_LINE
from source_server.domain.task import Job
from source_server.services.tasks import Wish
from source_server.web import answers, policy, wire, wishes
from source_server.web.access import account_as, any_account, services
from source_server.web.requires import requirements

blueprint = Blueprint("scientist", __name__)


@blueprint.post("/projects/<project>/tasks")
def add_task(project: str) -> tuple[Response, int]:
    """Make a waiting task."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.TaskBody, request.get_data())
    job = Job(
        action=tuple(body.action),
        own_command=not body.action,
        image=body.image,
        env=dict(body.env),
        timeout_s=body.timeout_s,
        requires=requirements(body.requires),
    )
    wish = Wish(
        name=body.name or project,
        job=job,
        rows_per_chunk=body.rows_per_chunk,
        priority=body.priority,
        validation=None if body.validation is None else policy.validation(body.validation),
        validator=None if body.validation is None else policy.validator(body.validation),
    )
    task = services().tasks.add(account, project, wish)
    made = answers.task_report(services().tasks.report(task))
    return jsonify({**made, "warnings": services().warn([task])}), 201


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
        started = tasks.start(account, task_id)
        return jsonify({**answers.task_report(tasks.report(started)), "warnings": services().warn([started])})
    if verb == "cancel":
        tasks.cancel(account, task_id)
    else:
        tasks.pause(account, task_id, paused=verb == "pause")
    return _report(account, task_id)


@blueprint.post("/assign/all")
def assign_all() -> tuple[Response, int]:
    """Start and deal all of the caller's sealed tasks; `?by=speed` levels time instead of numbers."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    return _deal(account, services().tasks.own_projects(account))


@blueprint.post("/assign/<project>")
def assign_project(project: str) -> tuple[Response, int]:
    """Start and deal one project's sealed tasks; `?by=speed` likewise."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    services().tasks.require_project(account, project)
    return _deal(account, [project])


@blueprint.get("/deals/<deal_id>")
def get_deal(deal_id: str) -> Response:
    """What a deal did so far."""
    account = account_as(Role.SCIENTIST)
    return jsonify(answers.deal(services().assign.report(services().assign.of(account, deal_id))))


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
    report = services().assign(account.id, projects, _by())
    warnings = services().warn.of(report.deal.tasks)
    return jsonify({**answers.deal(report), "warnings": warnings}), 200 if report.deal.done else 202


def _by() -> By:
    try:
        return By(request.args.get("by", By.COUNT.value))
    except ValueError:
        raise BadInput(f"by is one of {', '.join(by.value for by in By)}.") from None


def _nothing_in_body() -> None:
    if request.get_data():
        wire.parse(wishes.EmptyBody, request.get_data())


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
