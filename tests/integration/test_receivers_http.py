"""Work comes in over HTTP: stored before it is acknowledged, a task afterwards, and never two."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from people import Scientist

ECHO = {"action": ["/bin/echo", "{name}"]}


@pytest.fixture
def keeper(stores: Any) -> Any:
    """A housekeeper, whose steps a test calls."""
    from source_server.housekeeping import Housekeeper

    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def receiver(scientist: Scientist) -> Callable[..., dict[str, Any]]:
    """Opens a way into the project `greetings`."""
    scientist.ok("POST", "/projects", {"name": "greetings"})

    def make(**settings: Any) -> dict[str, Any]:
        body = {"kind": "http", **settings}
        return dict(scientist.ok("POST", "/projects/greetings/receivers", body))

    return make


def send(app: Any, receiver: dict[str, Any], body: Any, secret: str | None = None, **headers: str) -> Any:
    shown = {"Authorization": f"Bearer {secret or receiver['secret']}", **headers}
    return app.test_client().post(receiver["address"], json=body, headers=shown)


def events(scientist: Scientist, **query: Any) -> list[dict[str, Any]]:
    return list(scientist.ok("GET", "/projects/greetings/events", query_string=query)["events"])


def test_rows_that_come_in_are_a_task_of_the_template_that_runs(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, volunteer: Any
) -> None:
    way = receiver(template={**ECHO, "name": "Greetings"})

    taken = send(app, way, {"rows": [{"name": "Ada"}, {"name": "Grace"}]})
    keeper.events()

    assert taken.status_code == 202
    assert taken.get_json()["state"] == "new"
    [event] = events(scientist)
    assert (event["state"], event["id"]) == ("done", taken.get_json()["id"])
    task = scientist.ok("GET", f"/tasks/{event['task']}")
    assert (task["state"], task["name"], task["rows"]) == ("running", "Greetings", 2)
    assert {json.loads(one["input"])["name"] for one in volunteer().claim(5)} == {"Ada", "Grace"}


def test_the_same_id_and_rows_again_is_the_same_event_and_other_rows_are_refused(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(template=ECHO)
    send(app, way, {"id": "batch-7", "rows": [{"name": "Ada"}]})
    keeper.events()

    again = send(app, way, {"id": "batch-7", "rows": [{"name": "Ada"}]})
    other = send(app, way, {"id": "batch-7", "rows": [{"name": "Eve"}]})
    keeper.events()

    assert again.get_json()["task"] == "batch-7"
    assert other.status_code == 409
    assert "another id" in other.get_json()["error"]
    assert len(events(scientist)) == len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_a_message_without_id_is_a_task_of_its_own_each_time(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(template=ECHO)

    for _ in range(2):
        send(app, way, {"rows": [{"name": "Ada"}]})
    keeper.events()

    assert len({event["task"] for event in events(scientist)}) == 2


@pytest.mark.parametrize(
    "secret", ["", "dcr_wrong", "dcr_\N{KELVIN SIGN}", "x" * 5000], ids=["none", "wrong", "unicode", "long"]
)
def test_nothing_comes_in_with_a_wrong_secret(
    app: Any, scientist: Scientist, receiver: Any, secret: str
) -> None:
    way = receiver(template=ECHO)

    shown = {"Authorization": f"Bearer {secret}".encode().decode("latin-1")}
    answer = app.test_client().post(way["address"], json={"rows": [{"name": "A"}]}, headers=shown)

    assert answer.status_code == 401
    assert events(scientist) == []


def test_the_secret_of_one_receiver_does_not_open_another(
    app: Any, scientist: Scientist, receiver: Any
) -> None:
    one, other = receiver(template=ECHO), receiver(template=ECHO)

    answer = send(app, one, {"rows": [{"name": "Ada"}]}, secret=other["secret"])

    assert answer.status_code == 401


def test_a_signed_message_needs_no_secret_shown_and_a_changed_one_is_refused(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(template=ECHO, signed=True)
    body = json.dumps({"rows": [{"name": "Ada"}]}).encode()
    signature = hmac.new(way["secret"].encode(), body, hashlib.sha256).hexdigest()

    def post(body: bytes, **headers: str) -> int:
        return int(app.test_client().post(way["address"], data=body, headers=headers).status_code)

    assert post(body, **{"X-Hub-Signature-256": f"sha256={signature}"}) == 202
    assert post(body + b" ", **{"X-Hub-Signature-256": f"sha256={signature}"}) == 401
    assert post(body, **{"X-Hub-Signature-256": f"sha1={signature}"}) == 401
    assert post(body, Authorization=f"Bearer {way['secret']}") == 401


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"rows": [{"who": "Ada"}]}, "no field 'name'"),
        ({"rows": []}, "rows"),
        ({"rows": [{}]}, "no fields"),
        ({"rows": [1]}, "rows.0"),
        ({"rows": [{"name": "Ada"}], "action": ["/bin/sh"]}, "no field 'action'"),
        ({"rows": [{"name": "Ada"}], "job": ECHO}, "a job of its own"),
        ({"rows": [{"name": "Ada"}], "id": "a--b"}, "id"),
        ({"rows": [{"name": "x" * 1_100_000}]}, "longer than"),
    ],
)
def test_what_could_not_become_a_task_is_refused_at_once_with_a_sentence(
    app: Any, scientist: Scientist, receiver: Any, body: Any, says: str
) -> None:
    way = receiver(template=ECHO)

    answer = send(app, way, body)

    assert answer.status_code == 400
    assert says in answer.get_json()["error"]
    assert events(scientist) == []


def test_too_much_at_once_is_refused_and_told_where_to_go(app: Any, receiver: Any) -> None:
    way = receiver(template=ECHO)

    answer = send(app, way, {"rows": [{"name": "x" * 60_000}] * 100})

    assert answer.status_code == 413
    assert "upload" in answer.get_json()["error"]


def test_a_receiver_without_template_takes_jobs_with_their_rows(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver()

    without = send(app, way, {"rows": [{"n": 1}]})
    with_job = send(app, way, {"job": {"action": ["/bin/cat"]}, "rows": [{"n": 1}], "id": "mine"})
    keeper.events()

    assert without.status_code == 400
    assert with_job.status_code == 202
    assert scientist.ok("GET", "/tasks/mine")["job"]["action"] == ["/bin/cat"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "carrier pigeon"}, "kinds are"),
        ({"kind": "http", "colour": "red"}, "colour"),
        ({"kind": "http", "template": {"action": ["{name"]}}, "single"),
        ({"kind": "http", "template": {"action": []}}, "action"),
        ({"kind": "http", "template": {**ECHO, "id": "one"}}, "no 'id'"),
        ({"kind": "http", "template": {**ECHO, "x": 1}}, "'x'"),
        ({"kind": "http", "signed": "yes"}, "signed"),
    ],
)
def test_settings_that_could_not_work_are_refused_when_a_receiver_is_made(
    scientist: Scientist, settings: Any, says: str
) -> None:
    scientist.ok("POST", "/projects", {"name": "greetings"})

    answer = scientist.call("POST", "/projects/greetings/receivers", settings)

    assert answer.status_code == 400
    assert says in answer.get_json()["error"]


def test_secrets_are_shown_once_and_kept_as_a_hash(scientist: Scientist, receiver: Any, raw: Any) -> None:
    way = receiver(template=ECHO)

    [listed] = scientist.ok("GET", "/projects/greetings/receivers")["receivers"]

    assert "secret" not in listed
    assert way["secret"] not in repr(list(raw.receivers.find()))


def test_strangers_neither_see_nor_make_nor_remove_receivers(app: Any, new_key: Any, receiver: Any) -> None:
    way = receiver(template=ECHO)
    stranger = Scientist(app, new_key("scientist"))

    for method, path in (
        ("GET", "/receivers"),
        ("POST", "/receivers"),
        ("DELETE", f"/receivers/{way['id']}"),
        ("GET", "/events"),
    ):
        body = {"kind": "http"} if method == "POST" else None
        assert stranger.call(method, f"/projects/greetings{path}", body).status_code == 404


def test_a_removed_receiver_takes_nothing_and_what_waited_there_is_refused_with_the_reason(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(template=ECHO)
    send(app, way, {"rows": [{"name": "Ada"}]})

    scientist.ok("DELETE", f"/projects/greetings/receivers/{way['id']}")
    keeper.events()

    assert send(app, way, {"rows": [{"name": "Ada"}]}).status_code == 404
    [event] = events(scientist)
    assert event["state"] == "refused"
    assert "removed" in event["why"]


def test_an_id_that_another_task_has_is_refused_with_the_reason_and_handled_again_on_demand(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(template=ECHO)
    scientist.ok("POST", "/projects/greetings/tasks", {"action": ["/bin/true"], "id": "taken"})
    send(app, way, {"id": "taken", "rows": [{"name": "Ada"}]})
    keeper.events()
    [event] = events(scientist)
    assert (event["state"], event["task"]) == ("refused", None)
    assert "another task" in event["why"]

    scientist.ok("POST", f"/projects/greetings/events/{event['id']}/again")

    assert events(scientist)[0]["state"] == "new"
    keeper.events()
    assert events(scientist)[0]["state"] == "refused"


def test_events_are_listed_newest_first_in_pages(app: Any, scientist: Scientist, receiver: Any) -> None:
    way = receiver(template=ECHO)
    for number in range(5):
        send(app, way, {"id": f"n{number}", "rows": [{"name": "Ada"}]})

    first = events(scientist, limit=2)
    second = events(scientist, limit=2, before=first[-1]["id"])

    assert [event["key"] for event in (*first, *second)] == ["n4", "n3", "n2", "n1"]
    assert scientist.call("GET", "/projects/greetings/events?limit=0").status_code == 400
    assert scientist.call("GET", "/projects/greetings/events?before=nothing").status_code == 400


def test_a_full_receiver_says_so_before_it_stores_anything(
    app: Any, scientist: Scientist, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.intake.intake.MOST_OPEN", 2)
    way = receiver(template=ECHO)
    for number in range(2):
        send(app, way, {"id": f"n{number}", "rows": [{"name": "Ada"}]})

    third = send(app, way, {"id": "n3", "rows": [{"name": "Ada"}]})
    repeated = send(app, way, {"id": "n1", "rows": [{"name": "Ada"}]})

    assert third.status_code == 429
    assert third.headers["Retry-After"]
    assert repeated.status_code == 202
    assert len(events(scientist)) == 2


def test_data_that_does_not_fit_after_all_leaves_no_task_that_anybody_waits_for(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any
) -> None:
    way = receiver(template=ECHO)
    send(app, way, {"id": "odd", "rows": [{"name": "Ada"}]})
    raw.events.update_one({}, {"$set": {"payload": b'{"who": "Ada"}\n'}})

    keeper.events()

    [event] = events(scientist)
    assert event["state"] == "refused"
    assert "name" in event["why"]
    assert scientist.ok("GET", "/tasks/odd")["cancelled"]


# --- rows for a task that goes on


def test_rows_are_added_to_an_open_ended_task_in_the_order_in_which_they_came(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any
) -> None:
    way = receiver(append_to="stream")
    body = {**ECHO, "id": "stream", "open_ended": True}
    scientist.ok("POST", "/projects/greetings/tasks", body)
    scientist.ok("POST", "/tasks/stream/start")

    for number in range(5):
        send(app, way, {"id": f"n{number}", "rows": [{"name": f"{number}a"}, {"name": f"{number}b"}]})
    send(app, way, {"id": "n1", "rows": [{"name": "1a"}, {"name": "1b"}]})
    keeper.events()

    assert {event["state"] for event in events(scientist)} == {"done"}
    chunks = raw.chunks.find({"task": "stream"}, sort=[("n", 1)])
    names = [json.loads(chunk["input"])["name"] for chunk in chunks]
    assert names == [f"{number}{letter}" for number in range(5) for letter in "ab"]


def test_rows_for_one_task_wait_for_those_before_them(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any, raw: Any
) -> None:
    from datetime import datetime, timezone

    way = receiver(append_to="stream")
    scientist.ok("POST", "/projects/greetings/tasks", {**ECHO, "id": "stream", "open_ended": True})
    scientist.ok("POST", "/tasks/stream/start")
    first = send(app, way, {"id": "n0", "rows": [{"name": "0"}]}).get_json()
    send(app, way, {"id": "n1", "rows": [{"name": "1"}]})
    # Another housekeeper has the first in hand, or died just now.
    held = {"state": "handling", "hand": "another", "touched": datetime.now(timezone.utc)}
    raw.events.update_one({"_id": first["id"]}, {"$set": held})

    keeper.events()
    assert [event["state"] for event in events(scientist)] == ["new", "handling"]

    raw.events.update_one({"_id": first["id"]}, {"$set": {"touched": datetime(2026, 1, 1)}})
    keeper.events()
    assert [event["state"] for event in events(scientist)] == ["done", "done"]


def test_rows_for_a_task_that_takes_none_are_refused_with_the_reason(
    app: Any, scientist: Scientist, keeper: Any, receiver: Any
) -> None:
    way = receiver(append_to="closed")
    send(app, way, {"id": "early", "rows": [{"name": "Ada"}]})
    keeper.events()
    assert "no task closed" in events(scientist)[0]["why"]

    scientist.ok("POST", "/projects/greetings/tasks", {**ECHO, "id": "closed"})
    send(app, way, {"id": "late", "rows": [{"name": "Ada"}]})
    keeper.events()
    assert "open-ended" in events(scientist)[0]["why"]


def test_more_rows_than_a_message_may_add_are_refused(app: Any, receiver: Any) -> None:
    way = receiver(append_to="stream")

    answer = send(app, way, {"rows": [{"name": "Ada"}] * 1001})

    assert answer.status_code == 413
    assert "send several" in answer.get_json()["error"]
