"""Scientists' messages: requests that go on being understood, and answers that keep what they had.

Goldens of a released version are only ever added to: programs of last year's release send and read them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from source_server.domain.refusal import BadInput
from source_server.web import wire
from source_server.web.bodies import limits, wishes

GOLDENS = Path(__file__).parent / "scientist-v1"
NAMES = sorted(path.stem for path in GOLDENS.glob("*.json"))

SHAPES = {
    "project": wishes.ProjectBody,
    "project_changed": wishes.PolicyBody,
    "task": wishes.TaskBody,
    "task_again": wishes.TaskBody,
    "task_of_jobs": wishes.TaskBody,
    "task_other_body": wishes.TaskBody,
    "task_refused": wishes.TaskBody,
    "task_changed": limits.TaskPatch,
    "rows": wishes.RowsBody,
    "requeue": wishes.RequeueBody,
}
BY_ID = ("dealt", "holding")  #: objects whose names are ids


def golden(name: str) -> Any:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def kinds(value: Any) -> Any:
    """A message with its values forgotten; what may be null in one message and something else in the next is any."""
    if isinstance(value, dict):
        return {name: kinds(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [kinds(inner) for inner in value[:1]]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value).__name__
    return "number"


def lost(before: Any, now: Any, place: str = "") -> list[str]:
    """Places of a golden answer that an answer of today does not have, or has of another kind."""
    if place.rpartition("/")[2] in BY_ID:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        found = [f"{place}/{name}" for name in before.keys() - now.keys()]
        for name in before.keys() & now.keys():
            found += lost(before[name], now[name], f"{place}/{name}")
        return found
    if isinstance(before, list) and isinstance(now, list):
        return lost(before[0], now[0], f"{place}/0") if before and now else []
    same = before == now or "NoneType" in (before, now)
    return [] if same else [place]


@pytest.mark.parametrize("name", [one for one in NAMES if golden(one).get("request") is not None])
def test_every_golden_request_is_understood_or_refused_as_it_was(name: str) -> None:
    message = golden(name)

    if name == "task_refused":
        with pytest.raises(BadInput) as refused:
            wire.read(SHAPES[name], message["request"])
        assert str(refused.value) == message["response"]["error"]
    else:
        wire.read(SHAPES[name], message["request"])


@pytest.mark.mongo
@pytest.mark.parametrize("name", NAMES)
def test_every_golden_is_what_the_document_says(app: Any, name: str) -> None:
    document = app.test_client().get("/openapi.json").get_json()
    message = golden(name)
    operation = document["paths"][message["path"]][message["method"].lower()]

    if message.get("request") is not None and message["status"] < 300:
        assert fits(document, operation["requestBody"], message["request"]) == []
    assert fits(document, operation["responses"][str(message["status"])], message["response"]) == []


def fits(document: Any, described: Any, value: Any) -> list[str]:
    schema = described["content"]["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [error.message for error in validator.iter_errors(value)]


def played(scientist: Any, volunteer: Any) -> dict[str, Any]:
    """All the calls, in an order in which each has something to answer; the answers by name."""
    said: dict[str, Any] = {}
    known: dict[str, str] = {}

    def call(name: str, **more: Any) -> Any:
        message = golden(name)
        path = message["path"]
        for word, value in {**known, **more}.items():
            path = path.replace(f"{{{word}}}", value)
        query = {"query_string": message["query"]} if "query" in message else {}
        said[name] = scientist.call(message["method"], path, message.get("request"), **query)
        return said[name].get_json()

    call("project")
    known["project"] = golden("project")["request"]["name"]
    call("project_changed")
    call("projects")
    known["task_id"] = call("task")["id"]
    call("task_again")
    call("task_other_body")
    call("task_refused")
    call("task_changed")
    open_ended = call("task_of_jobs")["id"]
    call("rows", task_id=open_ended)
    rows = b"a,b\n1,2\n3,4\n5,6\n"
    upload = f"/tasks/{known['task_id']}/chunks/first"
    said["upload"] = scientist.call("PUT", upload, data=rows, content_type="text/csv")
    who = volunteer(labels={"arch": "x86_64"}, resources={"cpus": 2, "memory_mb": 512, "disk_mb": 900})
    call("deal")
    claimed = [one for one in who.claim(10) if one["id"].startswith(f"{known['task_id']}.")]
    first, second = claimed[:2]
    who.add(who.attempt(first, '{"sum": 3}'), who.failure(second))
    known["chunk_id"] = second["id"]
    for name in ("task_shown", "tasks", "why", "attempts", "errors", "error_groups", "containers"):
        call(name)
    call("pause")
    call("requeue")
    return said


@pytest.mark.mongo
def test_answers_have_all_that_those_of_the_goldens_have(scientist: Any, volunteer: Any) -> None:
    answers = played(scientist, volunteer)

    assert set(answers) == set(NAMES)
    for name, answer in answers.items():
        message = golden(name)
        assert answer.status_code == message["status"], f"{name}: {answer.text[:300]}"
        assert lost(kinds(message["response"]), kinds(answer.get_json())) == [], name
