"""The error queue: what failed, alike or one by one; another try for it; and computing anew."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.domain.refusal import BadInput
from source_server.domain.rounds import Which
from source_server.services.tasks.send_round import Sent
from source_server.web import wire
from source_server.web.answers import failures as answers
from source_server.web.bodies import wishes
from source_server.web.http.access import account_as, services
from source_server.web.http.paging import limit_query, page_limit
from source_server.web.openapi import Caller, described
from source_server.web.shapes import failures as shapes

blueprint = Blueprint("failures", __name__)

PAGE = 100  #: errors, or groups, in one answer, unless asked otherwise
LARGEST_PAGE = 1000
LIMIT = limit_query(PAGE, LARGEST_PAGE)


@blueprint.get("/errors")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.Failures},
    query={"task": "Only this task's.", "after": "Goes on behind the error with this id.", "limit": LIMIT},
    refuses=(404,),
)
def errors() -> Response:
    """The caller's failed attempts, `?task=` only one task's; `?after=ID` goes on behind that one."""
    account = account_as(Role.SCIENTIST)
    found = services().errors.page(
        account,
        request.args.get("task"),
        after=request.args.get("after"),
        limit=page_limit(PAGE, LARGEST_PAGE),
    )
    pseudonyms = services().look.pseudonyms(one["account"] for one in found)
    return jsonify(errors=[answers.error(one, pseudonyms) for one in found])


@blueprint.get("/errors/groups")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.FailureGroups},
    query={"task": "Whose: it has to be said.", "limit": LIMIT},
    refuses=(404,),
)
def error_groups() -> Response:
    """The failures of `?task=` by signature, the most frequent first."""
    account = account_as(Role.SCIENTIST)
    task = request.args.get("task")
    if task is None:
        raise BadInput("Say which task's: ?task=ID.")
    reports, total = services().errors.groups(account, task, limit=page_limit(PAGE, LARGEST_PAGE))
    pseudonyms = services().look.pseudonyms(one.sample["account"] for one in reports if one.sample)
    return jsonify(groups=[answers.error_group(one, pseudonyms) for one in reports], total=total)


@blueprint.get("/errors/<error_id>")
@described(Caller.SCIENTIST, answers={200: shapes.Failure})
def get_error(error_id: str) -> Response:
    """One failed attempt."""
    found = services().errors.get(account_as(Role.SCIENTIST), error_id)
    return jsonify(answers.error(found, services().look.pseudonyms([found["account"]])))


@blueprint.post("/errors/requeue")
@described(
    Caller.SCIENTIST,
    body=wishes.RequeueBody,
    answers={200: shapes.Sent, 202: shapes.Sent},
    refuses=(404, 409),
    example={"task": "5f2a9c1d7e3b4a60"},
)
def requeue() -> tuple[Response, int]:
    """Give quarantined chunks another round: those named, those of one signature, or all of a task."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.RequeueBody, request.get_data())
    queue = services().errors
    if body.chunks is not None:
        return _sent(queue.requeue_chunks(account, _once(body.chunks)))
    assert body.task is not None
    return _sent(queue.requeue_task(account, body.task, body.signature))


@blueprint.post("/tasks/<task_id>/rerun")
@described(
    Caller.SCIENTIST,
    body=wishes.RerunBody,
    answers={200: shapes.Sent, 202: shapes.Sent},
    refuses=(409,),
    example={"which": "failed"},
)
def rerun(task_id: str) -> tuple[Response, int]:
    """Have chunks of a task computed anew: all, the quarantined, the suspect ones, or those named."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.RerunBody, request.get_data())
    which = Which.CHUNKS if body.which is None else Which(body.which)
    return _sent(services().rerun(account, task_id, which, _once(body.chunks or [])))


def _sent(sent: Sent) -> tuple[Response, int]:
    """200 when the round is done, 202 when housekeeping goes on with it."""
    return jsonify(sent=sent.chunks, done=sent.done), 200 if sent.done else 202


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
