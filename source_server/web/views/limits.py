"""Changing a task's limits and who is told, and the key that a project's webhooks are signed with."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from source_server.domain.account import Role
from source_server.web import wire
from source_server.web.answers import tasks as answers
from source_server.web.bodies.limits import TaskPatch, WebhookSecret, limits, targets
from source_server.web.http.access import account_as, services
from source_server.web.openapi import Caller, described
from source_server.web.shapes import tasks as shapes

blueprint = Blueprint("limits", __name__)


@blueprint.patch("/tasks/<task_id>")
@described(
    Caller.SCIENTIST,
    body=TaskPatch,
    answers={200: shapes.TaskReport},
    refuses=(409,),
    example={"limits": {"cpu_hours": 20}},
)
def change_task(task_id: str) -> Response:
    """Change the limits of a task, or who is told about it."""
    account = account_as(Role.SCIENTIST)
    body = wire.parse(TaskPatch, request.get_data())
    if "limits" in body.model_fields_set:
        services().change_task.limits(account, task_id, limits(body.limits))
    if "notify" in body.model_fields_set:
        services().change_task.notify(account, task_id, targets(body.notify or []))
    tasks = services().tasks
    return jsonify(answers.task_report(tasks.report(tasks.get(account, task_id))))


@blueprint.post("/projects/<project>/webhook-secret")
@described(Caller.SCIENTIST, answers={201: WebhookSecret})
def new_webhook_secret(project: str) -> tuple[Response, int]:
    """Make a new key for the project's webhooks and show it this once; for a day the one before signs beside it."""
    account = account_as(Role.SCIENTIST)
    services().tasks.require_project(account, project)
    return jsonify(secret=services().notices.new_key(project)), 201
