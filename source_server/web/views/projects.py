"""What scientists and operators call about projects."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.services.accounts.projects import Policy
from source_server.web import wire
from source_server.web.answers import projects as answers
from source_server.web.bodies import checking, wishes
from source_server.web.bodies.limits import targets
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import projects as shapes

blueprint = Blueprint("projects", __name__)


@blueprint.post("/projects")
@described(
    Caller.SCIENTIST,
    body=wishes.ProjectBody,
    answers={201: shapes.Project, 200: shapes.Project},
    refuses=(409,),
    example={"name": "sums"},
)
def add_project() -> tuple[Response, int]:
    """Make a project; the same name by the same account again is the same project, changed as the body says."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.ProjectBody, request.get_data())
    made = services().projects.add(account, body.name, _policy(body))
    return jsonify(answers.project(services().projects.get(account, body.name))), 201 if made else 200


@blueprint.patch("/projects/<project>")
@described(Caller.SCIENTIST, body=wishes.PolicyBody, answers={200: shapes.Project}, example={"share": 2})
def change_project(project: str) -> Response:
    """Change what the body names."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(wishes.PolicyBody, request.get_data())
    return jsonify(answers.project(services().projects.change(account, project, _policy(body))))


@blueprint.get("/projects/<project>")
@described(Caller.SCIENTIST, answers={200: shapes.Project})
def get_project(project: str) -> Response:
    """A project and its policy."""
    return jsonify(answers.project(services().projects.get(account_as(Role.SCIENTIST), project)))


@blueprint.get("/projects")
@described(Caller.SCIENTIST, answers={200: shapes.Projects})
def list_projects() -> Response:
    """The caller's projects; every one for an admin."""
    account = account_as(Role.SCIENTIST)
    return jsonify(projects=[answers.project(one) for one in services().projects.of(account)])


def _policy(body: wishes.PolicyBody) -> Policy:
    return Policy(
        share=body.share,
        assigned_only=body.assigned_only,
        priority=body.priority,
        image=body.image,
        notify=None if body.notify is None else targets(body.notify),
        validation=None if body.validation is None else checking.validation(body.validation),
        validator=None if body.validation is None else checking.validator(body.validation),
    )
