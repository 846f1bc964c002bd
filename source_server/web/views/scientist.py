"""What scientists call: tasks, data, assigning, errors."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Iterator
from typing import cast

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.account import Account, Role
from source_server.domain.dealing import By
from source_server.domain.refusal import BadInput
from source_server.domain.table import MAX_LINE
from source_server.domain.task import TaskState
from source_server.web import wire
from source_server.web.answers import tasks as answers
from source_server.web.answers.containers import container
from source_server.web.bodies import wishes
from source_server.web.bodies.task_wish import wish
from source_server.web.http.access import account_as, any_account, services
from source_server.web.http.paced_body import body_in_time
from source_server.web.http.paging import limit_query, page_limit
from source_server.web.openapi import Caller, Raw, described
from source_server.web.shapes import tasks as shapes
from source_server.web.shapes.containers import Containers

blueprint = Blueprint("scientist", __name__)

PAGE, LARGEST_PAGE = 100, 1000  #: tasks in one answer
BY = ("What is made level: numbers of chunks, or the time for them.", {"enum": [by.value for by in By]})


@blueprint.post("/projects/<project>/tasks")
@described(
    Caller.SCIENTIST,
    body=wishes.TaskBody,
    answers={201: shapes.WarnedTask, 200: shapes.WarnedTask},
    refuses=(409,),
    example={"action": ["/bin/echo", "hello {name}"], "timeout_s": 60},
)
def add_task(project: str) -> tuple[Response, int]:
    """Make a waiting task; one with an id and body that were used before is the same task."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.TaskBody, request.get_data())
    task, new = services().tasks.add(account, project, wish(project, body))
    made = answers.task_report(services().tasks.report(task))
    return jsonify({**made, "warnings": services().warn([task])}), 201 if new else 200


@blueprint.get("/tasks")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.Tasks},
    query={
        "project": "Only this project's.",
        "state": ("Only those in this state.", {"enum": [state.value for state in TaskState]}),
        "after": "The `next` of the page before.",
        "limit": limit_query(PAGE, LARGEST_PAGE),
    },
    refuses=(404,),
)
def list_tasks() -> Response:
    """A page of the caller's tasks, oldest first; `next` is null on the last one."""
    account = account_as(Role.SCIENTIST)
    said = {name: request.args.get(name) for name in ("project", "state", "after")}
    found = services().task_lists.page(account, **said, limit=page_limit(PAGE, LARGEST_PAGE))
    return jsonify(tasks=[answers.task(task) for task in found.tasks], next=found.next)


@blueprint.get("/tasks/<task_id>")
@described(Caller.SCIENTIST, answers={200: shapes.TaskReport})
def get_task(task_id: str) -> Response:
    """A task and how far it is."""
    return _report(account_as(Role.SCIENTIST), task_id)


@blueprint.delete("/tasks/<task_id>")
@described(Caller.SCIENTIST, answers={202: shapes.Deleted}, refuses=(409,))
def delete_task(task_id: str) -> tuple[Response, int]:
    """Delete a task that waits or is complete, with its data, results and errors."""
    services().delete(account_as(Role.SCIENTIST), task_id)
    return jsonify(deleted=task_id), 202


@blueprint.put("/tasks/<task_id>/chunks/<upload_id>")
@described(
    Caller.SCIENTIST,
    body=Raw(
        types=("text/csv", "application/jsonl", "application/vnd.apache.parquet"),
        says="The table: one line a row, in UTF-8, of any length; or a Parquet file.",
    ),
    answers={201: shapes.Uploaded},
    refuses=(409, 415),
    example="pairs.csv",
)
def upload(task_id: str, upload_id: str) -> tuple[Response, int]:
    """Receive the task's data as a stream; all of it or nothing."""
    account = account_as(Role.SCIENTIST)
    task = services().tasks.get(account, task_id)
    if not (0 < len(upload_id) <= 100 and upload_id.isascii() and upload_id.isprintable()):
        raise BadInput("An upload's id has 1 to 100 printable ASCII characters.")
    # A stream in constant memory: no limit on the whole. None would mean the app's limit to Flask.
    request.max_content_length = sys.maxsize
    with body_in_time():
        received = services().upload(task, upload_id, request.mimetype, _body_lines())
    return jsonify(upload=received.id, chunks=received.chunks, rows=received.rows), 201


@blueprint.post("/tasks/<task_id>/chunks")
@described(
    Caller.SCIENTIST,
    body=wishes.RowsBody,
    answers={201: shapes.Appended},
    refuses=(409,),
    example={"rows": [{"a": "1", "b": "2"}], "key": "monday"},
)
def append(task_id: str) -> tuple[Response, int]:
    """Add rows to an open-ended task, each of them a chunk; the same key again adds nothing."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.RowsBody, request.get_data())
    task = services().tasks.get(account, task_id)
    added = services().append(task, body.key or str(uuid.uuid4()), body.rows)
    return jsonify(key=added.key, first=added.n, chunks=added.count), 201


@blueprint.post("/tasks/<task_id>/<any(start, pause, resume, cancel, close):verb>")
@described(
    Caller.SCIENTIST,
    body=wishes.EmptyBody,
    optional_body=True,
    answers={200: shapes.SteeredTask},
    refuses=(409,),
)
def steer_task(task_id: str, verb: str) -> Response:
    """Start a waiting task, close or open its pause gate, cancel it, or let an open-ended one take no more rows."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    tasks = services().tasks
    if verb == "start":
        started = tasks.start(account, task_id)
        return jsonify({**answers.task_report(tasks.report(started)), "warnings": services().warn([started])})
    if verb == "cancel":
        tasks.cancel(account, task_id)
    elif verb == "close":
        services().append.close(tasks.get(account, task_id))
    else:
        tasks.pause(account, task_id, paused=verb == "pause")
    return _report(account, task_id)


@blueprint.post("/assign/all")
@described(
    Caller.SCIENTIST,
    body=wishes.EmptyBody,
    optional_body=True,
    answers={200: shapes.WarnedDeal, 202: shapes.WarnedDeal},
    query={"by": BY},
)
def assign_all() -> tuple[Response, int]:
    """Start and deal all of the caller's sealed tasks; `?by=speed` levels time instead of numbers."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    return _deal(account, services().tasks.own_projects(account))


@blueprint.post("/assign/<project>")
@described(
    Caller.SCIENTIST,
    body=wishes.EmptyBody,
    optional_body=True,
    answers={200: shapes.WarnedDeal, 202: shapes.WarnedDeal},
    query={"by": BY},
)
def assign_project(project: str) -> tuple[Response, int]:
    """Start and deal one project's sealed tasks; `?by=speed` likewise."""
    account = account_as(Role.SCIENTIST)
    _nothing_in_body()
    services().tasks.require_project(account, project)
    return _deal(account, [project])


@blueprint.get("/deals/<deal_id>")
@described(Caller.SCIENTIST, answers={200: shapes.Deal})
def get_deal(deal_id: str) -> Response:
    """What a deal did so far."""
    account = account_as(Role.SCIENTIST)
    return jsonify(answers.deal(services().assign.report(services().assign.of(account, deal_id))))


@blueprint.get("/containers")
@described(Caller.SCIENTIST, answers={200: Containers})
def containers() -> Response:
    """Client containers: a volunteer's own; all of them for scientists and admins."""
    account = any_account()
    found = services().look.containers(account)
    pseudonyms = services().look.pseudonyms(one.account for one in found)
    shown = [container(one, pseudonyms, own=account.role is not Role.SCIENTIST) for one in found]
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
    body = io.BufferedReader(cast(io.RawIOBase, request.stream), 64 * 1024)
    try:
        while line := body.readline(MAX_LINE + 1):
            got += len(line)
            yield line
    finally:
        body.detach()  # what is not read of a body that is refused is read by others
    # A connection that breaks off looks like the end of the body: a part must never pass for the whole.
    if told is not None and got < told:
        raise ClientDisconnected()
