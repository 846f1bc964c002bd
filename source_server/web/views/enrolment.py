"""`POST /enrol`: a newcomer who lends a machine gets an account."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import AfterValidator, StringConstraints

from source_server.web import wire
from source_server.web.http.access import services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import enrolment as shapes

blueprint = Blueprint("enrolment", __name__)

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

Email = Annotated[
    str,
    StringConstraints(max_length=254),
    AfterValidator(
        wire.matching(
            rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(\.{_LABEL})+", "must be an e-mail address"
        )
    ),
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Nonce = Annotated[
    str,
    AfterValidator(
        wire.matching(r"[0-9A-Fa-f-]{32,64}", "must have 32 to 64 hexadecimal digits and hyphens")
    ),
]


class EnrolBody(wire.Lenient):
    """`POST /enrol`: last year's installer and next year's send it."""

    key: Key | None = None
    email: Email | None = None
    host_name: wire.Name | None = None
    nonce: Nonce | None = None


@blueprint.post("/enrol")
@described(
    Caller.ANYONE,
    body=EnrolBody,
    answers={201: shapes.Enrolled},
    refuses=(401, 403, 429),
    example={"email": "ada@example.org", "host_name": "attic"},
)
def enrol() -> tuple[Response, int]:
    """Make a volunteer's account; its key is shown this once. Repeatable with a nonce."""
    body = wire.parse(EnrolBody, request.get_data())
    made = services().enrol(body.key, email=body.email, host_name=body.host_name, nonce=body.nonce)
    return jsonify(account=made.account, key=made.key), 201
