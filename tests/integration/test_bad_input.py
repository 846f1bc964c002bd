"""Rubbish gets one clear sentence and a 4xx; never a 500, never half of anything."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

NESTED = b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
RUBBISH_BODIES = [
    b"",
    b"{",
    b"nonsense",
    b"\xff\xfe",
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b'{"name": NaN}',
    b'{"name": {"$gt": ""}}',
    b'{"name": ["a"]}',
    b'{"name": 99999999999999999999999999}',
    b'{"name": ' + b"9" * 5000 + b"}",
    b'{"name": "a\\u0000b"}',
    b'{"name": "\\ud800"}',
    b'{"name": "ok", "unknown": 1}',
    b'{"\\ud800": 1}',
    NESTED,
]


def sentence(answer: Any, *statuses: int) -> str:
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.text[:300])
    text = str(answer.get_json()["error"])
    assert text and "\n" not in text and "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "call",
    [
        ("POST", "/projects"),
        ("POST", "/projects/sums/tasks"),
        ("POST", "/containers"),
        ("POST", "/heartbeat"),
        ("POST", "/next"),
        ("POST", "/add"),
        ("POST", "/release"),
    ],
)
def test_rubbish_bodies_are_refused_everywhere(
    scientist: Any, volunteer: Any, raw: Any, call: tuple[str, str]
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    who = volunteer()
    method, path = call
    caller = scientist if path.startswith("/projects") else who
    if path == "/containers":
        who.key = who.account_key
    before = {name: raw[name].count_documents({}) for name in ("projects", "tasks", "containers", "results")}

    for body in RUBBISH_BODIES:
        sentence(caller.call(method, path, data=body, content_type="application/json"))

    assert before == {name: raw[name].count_documents({}) for name in before}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", {"$gt": ""}),
        ("id", "not-a-uuid"),
        ("host", "attic"),
        ("host", {"id": 5}),
        ("labels", {"a": {"$ne": 1}}),
        ("labels", {"a\u0000b": "x"}),
        ("labels", {"a": 2**70}),
        ("labels", {"a": True}),
        ("resources", {"cpus": -1}),
        ("resources", {"cpus": "many"}),
        ("runtimes", "process"),
        ("image", "latest"),
        ("protocol", "1"),
        ("protocol", True),
    ],
)
def test_a_wrong_field_of_a_registration_is_named(volunteer: Any, field: str, value: Any) -> None:
    who = volunteer()
    who.key = who.account_key
    body = {"protocol": 1, "id": str(uuid.uuid4()), "host": {"id": str(uuid.uuid4())}, field: value}

    said = sentence(
        who.call("POST", "/containers", data=json.dumps(body), content_type="application/json"), 400
    )

    assert field in said


def test_labels_with_dots_and_dollars_are_only_labels(volunteer: Any, scientist: Any) -> None:
    volunteer(labels={"a.b": "x", "$where": "y"}, resources={"mem.total": 1.5})

    (one,) = scientist.ok("GET", "/containers")["containers"]

    assert one["labels"] == {"a.b": "x", "$where": "y"} and one["resources"] == {"mem.total": 1.5}


def test_another_protocol_is_told_to_update(volunteer: Any) -> None:
    who = volunteer()
    who.key = who.account_key

    said = sentence(who.call("POST", "/containers", {"protocol": 99, "from": "the future"}), 426)

    assert "protocol 1" in said


def test_unknown_fields_are_ignored_from_volunteers_and_refused_from_scientists(
    volunteer: Any, scientist: Any
) -> None:
    volunteer(invented="later")

    assert "colour" in sentence(scientist.call("POST", "/projects", {"name": "x", "colour": "red"}), 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", []),
        ("action", "echo hi"),
        ("action", ["echo", 5]),
        ("action", ["echo", "{a"]),
        ("action", ["echo", "\u0000"]),
        ("rows_per_chunk", 0),
        ("rows_per_chunk", 2**80),
        ("rows_per_chunk", "5"),
        ("rows_per_chunk", 2.0),
        ("timeout_s", -1),
        ("timeout_s", 1e300),
        ("env", {"A B": "x"}),
        ("env", {"A": 5}),
        ("image", "ubuntu:latest"),
        ("surprise", 1),
    ],
)
def test_a_wrong_field_of_a_task_is_refused(scientist: Any, raw: Any, field: str, value: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    sentence(scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], field: value}), 400)

    assert raw.tasks.count_documents({}) == 0


def test_placeholders_need_one_row_a_chunk_and_a_field_of_that_name(scientist: Any, raw: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    both = {"action": ["add", "{a}"], "rows_per_chunk": 2}
    assert "rows_per_chunk 1" in sentence(scientist.call("POST", "/projects/sums/tasks", both), 400)
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["add", "{c}"]})["id"]

    said = sentence(
        scientist.call("PUT", f"/tasks/{task}/chunks/u", data=b"a,b\n1,2\n", content_type="text/csv"), 400
    )

    assert "'c'" in said and "Line 2" in said
    assert raw.chunks.count_documents({}) == 0


UPLOADS = [
    ("text/csv", b"a,b\n1,2\n3\n", "Line 3 has 1 values for 2 columns"),
    ("text/csv", b"a,b\n1,2\n3,4,5\n", "Line 3 has 3 values"),
    ("text/csv", b'a,b\n"1\n",2\n3\n', "Line 4"),
    ("text/csv", b"a,b\n1,2\n\xff,4\n", "Line 3 is not UTF-8 (byte 1 of the line)"),
    ("text/csv", b"a,b\n1,2\n1,\x00\n", "Line 3 has a NUL"),
    ("text/csv", b"a,a\n1,2\n", "names the column 'a' twice"),
    ("text/csv", b"a,\n1,2\n", "without a name"),
    ("text/csv", b"a,b\n", "no rows"),
    ("text/csv", b"", "no rows"),
    ("text/csv", b'a,b\n1,"2\n', "Line 2"),
    ("text/csv", b"a\n" + b"x" * 1_100_000 + b"\n", "Line 2 is longer than 1048576"),
    ("text/csv", b"a\n" + b"x" * 1_100_000 + b"\n", "longer than"),
    ("application/jsonl", b'{"a": 1}\n{"a": \n', "Line 2 is not JSON"),
    ("application/jsonl", b'{"a": 1}\n[1]\n', "Line 2 is not a JSON object"),
    ("application/jsonl", b'{"a": NaN}\n', "Line 1 is not JSON"),
    ("application/jsonl", b'{"a": 1e999}\n', "Line 1 is not JSON"),
    ("application/jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "Line 1 is not JSON"),
    ("application/jsonl", b"{}\n", "no fields"),
    ("application/xml", b"<a/>", "text/csv"),
]


@pytest.mark.parametrize(("kind", "body", "expected"), UPLOADS)
def test_a_bad_upload_names_the_line_and_leaves_nothing(
    scientist: Any, raw: Any, kind: str, body: bytes, expected: str
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]

    said = sentence(scientist.call("PUT", f"/tasks/{task}/chunks/u", data=body, content_type=kind), 400)

    assert expected in said
    assert raw.chunks.count_documents({}) == 0
    assert scientist.call("POST", f"/tasks/{task}/start").status_code == 409
    assert (
        scientist.call("PUT", f"/tasks/{task}/chunks/u", data=b"a\n1\n", content_type="text/csv").status_code
        == 201
    )


def test_a_bad_row_behind_thousands_of_good_ones_leaves_nothing_stored(scientist: Any, raw: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]
    body = b"a,b\n" + b"1,2\n" * 3500 + b"1\n"

    said = sentence(scientist.call("PUT", f"/tasks/{task}/chunks/u", data=body, content_type="text/csv"), 400)

    assert "Line 3502" in said
    assert raw.chunks.count_documents({}) == 0


def test_an_upload_is_idempotent_by_its_id_and_a_task_takes_one(scientist: Any, raw: Any) -> None:
    task = scientist.task(body=b"a\n1\n2\n")
    path = f"/tasks/{task}/chunks"

    same = scientist.call("PUT", f"{path}/one", data=b"a\n1\n2\n", content_type="text/csv")
    changed = scientist.call("PUT", f"{path}/one", data=b"a\n1\n3\n", content_type="text/csv")
    another = scientist.call("PUT", f"{path}/two", data=b"a\n1\n2\n", content_type="text/csv")

    assert same.get_json() == {"upload": "one", "chunks": 2, "rows": 2}
    sentence(changed, 409)
    sentence(another, 409)
    assert raw.chunks.count_documents({}) == 2


def test_a_second_upload_while_one_is_under_way_is_refused_and_a_dead_one_is_replaced(
    scientist: Any, stores: Any, raw: Any
) -> None:
    from datetime import timedelta

    from source_server.domain.task import Upload

    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]
    now = stores.clock.now()
    dead = Upload(id="u", attempt="dead", touched=now)
    stores.tasks.begin_upload(task, dead, quiet_since=now)
    put = ("PUT", f"/tasks/{task}/chunks/u")

    busy = scientist.call("PUT", f"/tasks/{task}/chunks/v", data=b"a\n1\n", content_type="text/csv")
    raw.tasks.update_one({"_id": task}, {"$set": {"upload.touched": now - timedelta(minutes=2)}})
    replaced = scientist.call(*put, data=b"a\n1\n", content_type="text/csv")

    assert "under way" in sentence(busy, 409)
    assert replaced.status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/nosuch",
        "/tasks/%00",
        "/deals/nosuch",
        "/results.csv?task=nosuch",
        "/results.csv?project=nosuch",
        "/results.csv?after=rubbish",
        "/results.csv?after=a.99999999999999999999999.1",
        "/errors?task=nosuch",
        "/errors?limit=0",
        "/errors?limit=x",
        "/nowhere",
    ],
)
def test_unknown_ids_and_odd_questions_are_4xx(scientist: Any, path: str) -> None:
    sentence(scientist.call("GET", path))


def test_a_body_over_the_limit_is_413(volunteer: Any) -> None:
    answer = volunteer().call(
        "POST", "/add", data=b"x" * (16 * 1024 * 1024 + 1), content_type="application/json"
    )

    sentence(answer, 413)


def test_what_a_refusal_quotes_is_one_line_and_short(scientist: Any, volunteer: Any) -> None:
    long = scientist.call("POST", "/projects", {"name": "x", "y" * 1_000_000: 1})
    lines = scientist.call("GET", "/calculations/a%0Ab%1B%5B2J")
    entry = volunteer().call("POST", "/add", {"results": [{"z" * 100_000: 1, "chunk": "a\nb"}]})

    assert "There is no field 'yyy" in sentence(long, 400) and len(long.text) < 3000
    assert "a b [2J" in sentence(lines, 404)
    assert len(sentence(entry, 400)) < 3000


OPEN_TO_ALL = {
    *("/healthz", "/install.sh", "/releases/<version>/<name>"),
    *("/openapi.json", "/docs", "/sign-in", "/sign-out", "/calculator"),  # the last one leads to signing in
    *("/pages/page.css", "/pages/calculator.js"),
}


def test_no_endpoint_is_open_that_should_not_be(app: Any, scientist: Any, volunteer: Any) -> None:
    nobody = app.test_client()
    checked = 0
    for rule in app.url_map.iter_rules():
        if rule.rule in OPEN_TO_ALL or rule.endpoint == "static":
            continue
        values = dict.fromkeys(rule.arguments, "x")
        path = rule.build({**values, "verb": "start"})[1] if "verb" in values else rule.build(values)[1]  # type: ignore[index]
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            for headers in ({}, {"Authorization": "Bearer dca_invented"}, {"Authorization": "Basic eDp5"}):
                answer = nobody.open(path, method=method, headers=headers, data=b"{}")
                # A receiver's id is a secret's neighbour: one that does not exist is not there for anybody.
                closed = (400, 401, 404) if path.startswith("/in/") else (400, 401)
                assert answer.status_code in closed, (method, path, answer.status_code)
                checked += 1
    assert checked > 40


def test_roles_are_kept_apart(app: Any, scientist: Any, volunteer: Any, new_key: Any) -> None:
    who = volunteer()
    as_volunteer = type(scientist)(app, who.account_key)
    stranger = type(scientist)(app, new_key("scientist"))
    task = scientist.task(2)

    assert as_volunteer.call("POST", "/projects", {"name": "mine"}).status_code == 403
    assert as_volunteer.call("GET", "/results.csv").status_code == 403
    assert scientist.call("POST", "/containers", {"protocol": 1}).status_code == 403
    assert stranger.call("GET", f"/tasks/{task}").status_code == 404
    assert stranger.call("GET", f"/results.csv?task={task}").status_code == 404
    assert stranger.call("POST", "/projects", {"name": "sums"}).status_code == 409
    assert stranger.call("POST", "/projects/sums/tasks", {"action": ["x"]}).status_code == 404
    assert as_volunteer.ok("GET", "/containers")["containers"][0]["id"] == who.id


def test_the_database_holds_no_key(scientist: Any, volunteer: Any, raw: Any) -> None:
    who = volunteer()

    text = str([list(raw[name].find()) for name in raw.list_collection_names()])

    for key in (scientist.key, who.key, who.account_key):
        assert key not in text
