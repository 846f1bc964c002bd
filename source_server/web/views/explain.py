"""`GET /chunks/CHUNK/why`: why a chunk is not running, in words."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from source_server.domain.account import Role
from source_server.domain.facts import Past
from source_server.domain.timing import instant
from source_server.services.explain.why import Answer
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import attempts as shapes

blueprint = Blueprint("explain", __name__)


@blueprint.get("/chunks/<chunk_id>/why")
@described(Caller.SCIENTIST, answers={200: shapes.Why})
def why(chunk_id: str) -> Response:
    """What keeps the chunk, or what became of it, and the last of its attempts."""
    account = account_as(Role.SCIENTIST)
    return jsonify(_answer(services().why(account, chunk_id)))


def _answer(found: Answer) -> dict[str, Any]:
    return {
        "chunk": found.chunk.id,
        "state": found.chunk.state.value,
        "summary": found.explanation.summary,
        "reasons": list(found.explanation.reasons),
        "next": found.explanation.next,
        "attempts": [_attempt(one) for one in found.attempts],
    }


def _attempt(one: Past) -> dict[str, Any]:
    return {
        "id": one.id,
        "run": one.run,
        "outcome": one.outcome,
        "verdict": one.verdict.value,
        "exit_code": one.exit_code,
        "signature": one.signature,
        "account": one.account,
        "host": one.host,
        "container": one.container,
        "stored": instant(one.stored),
    }
