"""`GET /tasks/TASK/attempts`, `GET /chunks/CHUNK/attempts`: every attempt, good or failed, newest first."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.domain.refusal import BadInput
from source_server.web.answers import attempts as answers
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import attempts as shapes

blueprint = Blueprint("attempts", __name__)

PAGE = 50  #: attempts in one answer, unless asked otherwise
LARGEST_PAGE = 200
QUERY: dict[str, str | tuple[str, dict[str, Any]]] = {
    "after": "The `next` of the page before.",
    "limit": (
        "So many at most.",
        {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE},
    ),
}


@blueprint.get("/tasks/<task_id>/attempts")
@described(Caller.SCIENTIST, answers={200: shapes.Attempts}, query=QUERY)
def of_task(task_id: str) -> Response:
    """Every attempt at a task's chunks, newest first."""
    account = account_as(Role.SCIENTIST)
    found = services().attempts.of_task(account, task_id, after=request.args.get("after"), limit=_limit())
    return jsonify(answers.page(found))


@blueprint.get("/chunks/<chunk_id>/attempts")
@described(Caller.SCIENTIST, answers={200: shapes.Attempts}, query=QUERY)
def of_chunk(chunk_id: str) -> Response:
    """Every attempt at a chunk, of all its runs, newest first."""
    account = account_as(Role.SCIENTIST)
    found = services().attempts.of_chunk(account, chunk_id, after=request.args.get("after"), limit=_limit())
    return jsonify(answers.page(found))


def _limit() -> int:
    text = request.args.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= LARGEST_PAGE):
        raise BadInput(f"limit is a whole number from 1 to {LARGEST_PAGE}.")
    return int(text)
