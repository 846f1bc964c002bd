"""The record of volunteers' hosts: how their answers fared, and which are quarantined."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.web import wire
from source_server.web.answers import failures as answers
from source_server.web.bodies import wishes
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import containers as shapes

blueprint = Blueprint("hosts", __name__)


@blueprint.get("/hosts")
@described(Caller.VOLUNTEER, answers={200: shapes.Hosts})
def hosts() -> Response:
    """A volunteer's own hosts; all of them for an admin."""
    account = account_as(Role.VOLUNTEER)
    found = services().hosts.of(account)
    pseudonyms = services().look.pseudonyms(one.account for one in found)
    return jsonify(hosts=[answers.host(one, pseudonyms) for one in found])


@blueprint.post("/hosts/clear")
@described(
    Caller.OPERATOR,
    body=wishes.ClearHostBody,
    answers={200: shapes.Cleared},
    refuses=(404,),
    example={"account": "volunteer-5625d478", "host": "82daf70c-3c00-427f-add1-d17c323ad24d"},
)
def clear() -> Response:
    """End a host's quarantine."""
    account_as(Role.ADMIN)
    body = wire.parse(wishes.ClearHostBody, request.get_data())
    return jsonify(cleared=services().hosts.clear(body.account, body.host.lower()))
