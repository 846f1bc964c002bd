"""What client containers call: register, beat, next, add, release, leave."""

from __future__ import annotations

import uuid
from typing import Any

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.domain.attempt import Attempt
from source_server.domain.container import Host
from source_server.domain.refusal import BadInput, NotAllowed, Refusal
from source_server.services.answers.accept import Delivered
from source_server.services.containers.beat import require_life
from source_server.services.containers.register import Application, require_protocol
from source_server.web import wire
from source_server.web.answers import client as answers
from source_server.web.bodies import client as bodies
from source_server.web.http.access import account_as, calling_container, services
from source_server.web.http.errors import sentence_of, status_of
from source_server.web.openapi import Caller, Key, described
from source_server.web.shapes import client as shapes

blueprint = Blueprint("volunteer", __name__)

UUID = "0786b00e-7843-49fd-8aa9-25242fdfbfe5"  #: one of them, for the examples
MOMENT = "2026-11-22T06:00:00.000Z"
ATTEMPT: dict[str, Any] = {
    "chunk": "5f2a9c1d7e3b4a60.12",
    "run": 0,
    "token": UUID,
    "ticket": "TICKET",
    "outcome": "ok",
    "exit_code": 0,
    "stdout": "42\n",
    "started": MOMENT,
    "ended": MOMENT,
}

IDLE_RETRY_S = 1  #: what a container without work is told to wait at first; it waits longer each time


@blueprint.post("/containers")
@described(
    Caller.CONTAINER,
    key=Key.ACCOUNT,
    body=bodies.RegisterBody,
    answers={201: shapes.Registration},
    refuses=(426,),
    example={"protocol": 1, "id": UUID, "host": {"id": UUID}},
)
def register() -> tuple[Response, int]:
    """Register a client container under the account whose key is shown."""
    account = account_as(Role.VOLUNTEER)
    message = wire.decode(request.get_data())
    require_protocol(wire.read(bodies.ProtocolBody, message).protocol)
    body = wire.read(bodies.RegisterBody, message)
    application = Application(
        protocol=body.protocol,
        id=body.id.lower(),
        host=Host(id=body.host.id.lower(), name=body.host.name),
        labels=dict(body.labels),
        resources=dict(body.resources),
        runtimes=tuple(body.runtimes),
        image=body.image,
        features=tuple(dict.fromkeys(body.features)),
        projects=None if body.policy.projects is None else tuple(body.policy.projects),
        shares=dict(body.policy.shares),
        self_test=body.self_test,
    )
    made = services().register(account, application)
    return jsonify(answers.registration(made, services().beat_s)), 201


@blueprint.post("/heartbeat")
@described(
    Caller.CONTAINER,
    body=bodies.HeartbeatBody,
    answers={200: shapes.Beat},
    refuses=(410,),
    example={"life": UUID, "beat": 7, "held": {UUID: 3}, "started": ["5f2a9c1d7e3b4a60.12"], "paused": False},
)
def heartbeat() -> Response:
    """Note a beat and answer what became of what the container holds."""
    container = calling_container()
    body = wire.parse(bodies.HeartbeatBody, request.get_data())
    answer = services().beat(
        container,
        life=body.life,
        beat=body.beat,
        held=body.held,
        started=body.started,
        paused=body.paused,
        cannot=body.cannot,
    )
    return jsonify(answers.beat(answer, services().beat_s))


@blueprint.post("/next")
@described(
    Caller.CONTAINER,
    body=bodies.NextBody,
    answers={200: shapes.Claimed, 204: None},
    refuses=(410,),
    answer_headers={"Retry-After": "With 204: seconds to wait."},
    example={"token": UUID, "want": 4},
)
def next_chunks() -> Response | tuple[str, int, dict[str, str]]:
    """Take attempts in, then hand chunks out."""
    container = calling_container()
    require_life(container, container.life)
    body = wire.parse(bodies.NextBody, request.get_data())
    results = [answers.delivered(one) for one in _deliver(body.results)]
    claimed = services().claim(container, body.token, body.want)
    if not claimed.granted and not results:
        return "", 204, {"Retry-After": "0" if claimed.again else str(IDLE_RETRY_S)}
    images = {claimed.tasks[one.chunk.task].job.in_variant(one.variant).image for one in claimed.granted}
    archives = services().images.named(images)
    inputs = services().inputs.of_tasks(claimed.tasks.values())
    return jsonify(answers.claimed(claimed, results, archives, inputs))


@blueprint.post("/add")
@described(
    Caller.CONTAINER,
    body=bodies.AddBody,
    answers=dict.fromkeys((200, 400, 403, 404, 409), shapes.Added),
    example={"results": [ATTEMPT]},
)
def add() -> tuple[Response, int]:
    """Take attempts in; with a single one, what became of it is also the status."""
    body = wire.parse(bodies.AddBody, request.get_data())
    delivered = _deliver(body.results)
    answer: dict[str, Any] = {"results": [answers.delivered(one) for one in delivered]}
    refusal = delivered[0].refusal
    if len(delivered) > 1 or refusal is None:
        return jsonify(answer), 200
    return jsonify({**answer, "error": sentence_of(refusal)}), status_of(refusal)


@blueprint.post("/release")
@described(
    Caller.CONTAINER,
    body=bodies.ReleaseBody,
    answers={200: shapes.Released},
    example={"chunks": ["5f2a9c1d7e3b4a60.14"]},
)
def release() -> Response:
    """Give leases back."""
    container = calling_container()
    body = wire.parse(bodies.ReleaseBody, request.get_data())
    return jsonify(released=services().give_back.chunks(container, body.chunks))


@blueprint.delete("/containers/<container_id>")
@described(Caller.CONTAINER, answers={200: shapes.Released})
def leave(container_id: str) -> Response:
    """Say goodbye."""
    container = calling_container()
    if container.id != container_id.lower():
        raise NotAllowed("A container can only sign itself off.")
    return jsonify(released=services().give_back.leave(container, str(uuid.uuid4())))


def _deliver(entries: list[Any]) -> list[Delivered]:
    """Look at each entry by itself: a bad one never refuses its neighbours."""
    container = calling_container()
    sound: list[Attempt] = []
    outcomes: list[Delivered | None] = []
    for entry in entries:
        try:
            sound.append(bodies.attempt(_attempt(entry)))
            outcomes.append(None)
        except Refusal as refusal:
            outcomes.append(Delivered(chunk=_named_chunk(entry), refusal=refusal))
    stored = iter(services().accept(container, sound) if sound else ())
    return [next(stored) if outcome is None else outcome for outcome in outcomes]


def _attempt(entry: Any) -> bodies.AttemptBody:
    body = wire.read(bodies.AttemptBody, entry)
    for name, text, limit in (
        ("stdout", body.stdout, bodies.MAX_STDOUT),
        ("stderr_tail", body.stderr_tail, bodies.MAX_STDERR_TAIL),
    ):
        if len(text.encode()) > limit:
            raise BadInput(f"The field {name!r} has more than {limit} bytes.")
    return body


def _named_chunk(entry: Any) -> str:
    chunk = entry.get("chunk") if isinstance(entry, dict) else None
    return chunk[:100].encode("utf-8", "replace").decode() if isinstance(chunk, str) else ""
