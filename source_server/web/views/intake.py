"""Receivers: who may open a way into a project, what comes through it, and what became of that."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import IO, Annotated, Any, cast

from flask import Blueprint, Response, jsonify, request
from pydantic import ConfigDict, StringConstraints
from werkzeug.exceptions import ClientDisconnected

from source_server.domain.account import Role
from source_server.domain.receiver import Arrival, Event, Receiver
from source_server.domain.refusal import BadInput
from source_server.domain.timing import instant
from source_server.services.files.blobs import Read
from source_server.web import wire
from source_server.web.http.access import account_as, services
from source_server.web.http.paced_body import body_in_time
from source_server.web.openapi import Caller, Raw, described
from source_server.web.shapes import intake as shapes

blueprint = Blueprint("intake", __name__)

PAGE = 100  #: events in an answer, unless `limit` says otherwise
MOST = 1000


class ReceiverBody(wire.Strict):
    """`POST /projects/NAME/receivers`: the kind, and beside it the settings of that kind."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Annotated[str, StringConstraints(max_length=100)]


@blueprint.post("/projects/<project>/receivers")
@described(
    Caller.SCIENTIST,
    body=ReceiverBody,
    answers={201: shapes.MadeReceiver},
    refuses=(404, 413, 429),
    example={"kind": "http", "template": {"action": ["/bin/echo", "hello {name}"]}},
)
def add_receiver(project: str) -> tuple[Response, int]:
    """Open a way into a project; its secret is shown this once."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(ReceiverBody, request.get_data())
    made = services().intake.add(account, project, body.kind, body.model_extra or {})
    return jsonify({**receiver(made.receiver, made.secret), "secret": made.secret}), 201


@blueprint.get("/projects/<project>/receivers")
@described(Caller.SCIENTIST, answers={200: shapes.Receivers})
def list_receivers(project: str) -> Response:
    """A project's receivers, without their secrets."""
    found = services().intake.of(account_as(Role.SCIENTIST), project)
    return jsonify(receivers=[receiver(one) for one in found])


@blueprint.delete("/projects/<project>/receivers/<receiver_id>")
@described(Caller.SCIENTIST, answers={204: None})
def remove_receiver(project: str, receiver_id: str) -> tuple[str, int]:
    """Close a way in."""
    services().intake.remove(account_as(Role.SCIENTIST), project, receiver_id)
    return "", 204


@blueprint.get("/projects/<project>/events")
@described(
    Caller.SCIENTIST,
    answers={200: shapes.Events},
    query={
        "receiver": "Only this receiver's.",
        "before": "Go on behind this event: the last one of the page before.",
        "limit": ("So many at most.", {"type": "integer", "minimum": 1, "maximum": MOST, "default": PAGE}),
    },
)
def list_events(project: str) -> Response:
    """What came to a project's receivers, newest first; `?receiver=`, `?before=` an event's id, `?limit=`."""
    found = services().intake.events(
        account_as(Role.SCIENTIST),
        project,
        receiver=request.args.get("receiver"),
        before=request.args.get("before"),
        limit=_limit(),
    )
    return jsonify(events=[event(one) for one in found])


@blueprint.post("/projects/<project>/events/<event_id>/again")
@described(Caller.SCIENTIST, answers={200: shapes.Event}, refuses=(409,))
def handle_again(project: str, event_id: str) -> Response:
    """Have an event that was refused handled anew."""
    return jsonify(event(services().intake.again(account_as(Role.SCIENTIST), project, event_id)))


@blueprint.post("/in/<receiver_id>")
@blueprint.put("/in/<receiver_id>")
@blueprint.put("/in/<receiver_id>/<path:file_name>")
@described(
    Caller.RECEIVER,
    body=Raw(
        types=("*/*",), says="What this kind of receiver takes: JSON, a table, files, a webhook's message."
    ),
    answers={202: shapes.Event},
    refuses=(401, 409, 413, 429),
    headers={
        "Authorization": "`Bearer SECRET`, the receiver's own.",
        "X-Hub-Signature-256": "In its place, where the receiver says so: `sha256=` and the body's HMAC.",
    },
)
def take_in(receiver_id: str, file_name: str = "") -> tuple[Response, int]:
    """Something comes to a receiver: 202 once it is stored."""
    found = services().intake.find(receiver_id)
    arrival = Arrival(
        method=request.method,
        headers={key.lower(): value for key, value in request.headers.items()},
        body=b"",
        name=file_name,
        query=dict(request.args.items()),
    )
    kind = services().intake.kind(found.kind)
    if not kind.streams:
        request.max_content_length = kind.most_bytes
        return _taken(found, replace(arrival, body=request.get_data()))
    # A stream in constant memory: no limit on the whole. None would mean the app's limit to Flask.
    request.max_content_length = sys.maxsize
    with body_in_time() as read:
        return _taken(found, replace(arrival, stream=cast(IO[bytes], _Whole(read, request.content_length))))


class _Whole:
    """A body as a stream. One that breaks off must never pass for the whole."""

    def __init__(self, read: Read, told: int | None) -> None:
        self._read, self._told, self._got = read, told, 0

    def read(self, size: int) -> bytes:
        """Up to so many bytes; raises ClientDisconnected at an end that comes too early."""
        piece = self._read(size)
        self._got += len(piece)
        if not piece and self._told is not None and self._got < self._told:
            raise ClientDisconnected()
        return piece


def _taken(found: Receiver, arrival: Arrival) -> tuple[Response, int]:
    return jsonify(event(services().intake.take(found, arrival))), 202


def receiver(one: Receiver, secret: str | None = None) -> dict[str, Any]:
    """A receiver; its address has the secret only where the address is the secret, and only the first time."""
    where = services().intake.kind(one.kind).where(one, secret)
    base = services().public_url or request.host_url.rstrip("/")
    return {
        "id": one.id,
        "project": one.project,
        "kind": one.kind,
        "settings": dict(one.settings),
        "address": base + where if where.startswith("/") else where,
        "created": instant(one.created),
    }


def event(one: Event) -> dict[str, Any]:
    """An event without what it brought."""
    return {
        "id": one.id,
        "receiver": one.receiver,
        "kind": one.kind,
        "key": one.key,
        "received": instant(one.received),
        "state": one.state.value,
        "task": one.task,
        "why": one.why,
        "about": dict(one.about),
        "tries": one.tries,
    }


def _limit() -> int:
    text = request.args.get("limit", str(PAGE))
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= MOST:
        raise BadInput(f"limit is a number from 1 to {MOST}.")
    return int(text)
