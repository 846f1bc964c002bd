"""The server's half of the protocol against the golden messages, over a real MongoDB."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from release_parts import old_archive, tar

from source_server.domain.job import BadAction, placeholders
from source_server.services.files.images import Images
from source_server.web import wire
from source_server.web.bodies import client as bodies

GOLDENS = Path(__file__).parent / "v1"

SHAPES = {
    "register": bodies.RegisterBody,
    "register_sandbox": bodies.RegisterBody,
    "register_features": bodies.RegisterBody,
    "heartbeat": bodies.HeartbeatBody,
    "heartbeat_cannot": bodies.HeartbeatBody,
    "next": bodies.NextBody,
    "next_archive": bodies.NextBody,
    "next_nothing": bodies.NextBody,
    "add": bodies.AddBody,
    "add_refused": bodies.AddBody,
    "next_files": bodies.NextBody,
    "next_gpu": bodies.NextBody,
    "add_files": bodies.AddBody,
    "add_files_first": bodies.AddBody,
    "release": bodies.ReleaseBody,
    "life_ended": bodies.HeartbeatBody,
}


def golden(name: str) -> Any:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def shape(value: Any) -> Any:
    """A message with its values forgotten: names and kinds."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


@pytest.mark.parametrize("name", SHAPES)
def test_every_golden_request_is_understood(name: str) -> None:
    message = golden(name)["request"]

    wire.read(SHAPES[name], message)
    for attempt in message.get("results", []):
        wire.read(bodies.AttemptBody, attempt)


@pytest.mark.parametrize("name", SHAPES)
def test_unknown_fields_of_a_newer_client_are_ignored(name: str) -> None:
    message = {**golden(name)["request"], "from_the_future": {"a": [1]}}

    assert not hasattr(wire.read(SHAPES[name], message), "from_the_future")


def test_every_golden_has_a_test_of_its_own_here() -> None:
    answered = {"leave", "too_old", "placeholders", "seeds"}
    answered |= {"blob_get", "blob_head", "blob_put_part", "blob_put_last", "blob_put_elsewhere"}

    assert {path.stem for path in GOLDENS.glob("*.json")} == set(SHAPES) | answered


@pytest.mark.mongo
def test_answers_have_the_shapes_of_the_goldens(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(6, env={"MODE": "fast"})
    again = {**golden("register")["request"]}
    who = volunteer(
        host=again["host"]["id"], labels={"room": "attic"}, resources={"cpus": 2, "memory_mb": 512}
    )
    who.key = who.account_key
    made = who.call("POST", "/containers", again)
    assert made.status_code == 201 and shape(made.get_json()) == shape(golden("register")["response"])
    who.key, who.life, who.id = made.get_json()["key"], made.get_json()["life"], again["id"]

    first, second, third = who.claim(3)
    answer = who.call("POST", "/next", {**golden("next")["request"], "results": [who.attempt(first)]})
    beat = who.call("POST", "/heartbeat", {**golden("heartbeat")["request"], "life": who.life, "started": []})
    added = who.add(who.attempt(second), who.failure(third))
    refused = who.add({**who.attempt(third), "ticket": "not-a-ticket"})
    released = who.call("POST", "/release", {"chunks": [f"{task}.5"]})
    nothing = who.call("POST", "/next", {**golden("next_nothing")["request"], "want": 0})
    left = who.call("DELETE", f"/containers/{who.id}")

    assert nothing.status_code in (200, 204)
    said, expected = answer.get_json(), golden("next")["response"]
    for message in (said, expected):
        message["jobs"] = {"TASK/main": next(iter(message["jobs"].values()))}
    assert shape(said) == shape(expected)
    expected = golden("heartbeat")["response"]
    assert set(beat.get_json()) == set(expected) and beat.get_json()["config"] == expected["config"]
    assert shape(added.get_json()) == shape(golden("add")["response"])
    assert refused.status_code == golden("add_refused")["status"]
    assert refused.get_json()["error"] == golden("add_refused")["response"]["error"]
    assert shape(refused.get_json()) == shape(golden("add_refused")["response"])
    assert shape(released.get_json()) == shape(golden("release")["response"])
    assert left.status_code == 200 and shape(left.get_json()) == shape(golden("leave")["response"])


@pytest.mark.mongo
def test_a_sandbox_says_what_it_takes_and_hears_of_an_archive_as_the_goldens_say(
    app: Any, scientist: Any, volunteer: Any, stores: Any, tmp_path: Path
) -> None:
    image, archive = old_archive(tar({"bin/fit": b"fit"}))
    (tmp_path / "image.tar").write_bytes(archive)
    Images(stores).add(tmp_path / "image.tar")
    scientist.running(3, image=image, project="sums")
    said = golden("register_sandbox")["request"]
    who = volunteer(
        runtimes=said["runtimes"],
        policy=said["policy"],
        self_test=said["self_test"],
        labels={"arch": "x86_64"},
    )

    heard = who.call("POST", "/next", {**golden("next_archive")["request"], "want": 1}).get_json()
    refused = {**golden("heartbeat_cannot")["request"], "life": who.life, "held": {}, "started": []}
    beat = who.call("POST", "/heartbeat", {**refused, "cannot": {image: "image too large here: 7 GB"}})

    [told], [expected] = heard["jobs"].values(), golden("next_archive")["response"]["jobs"].values()
    assert set(told) == set(expected) and shape(told["archive"]) == shape(expected["archive"])
    assert shape(heard["chunks"]) == shape(golden("next_archive")["response"]["chunks"])
    assert (told["image"], told["project"]) == (image, "sums")
    assert set(beat.get_json()) == set(golden("heartbeat_cannot")["response"])
    assert stores.containers.find(who.id).cannot == {image: "image too large here: 7 GB"}


def registered(volunteer: Any, name: str) -> Any:
    """A client that registers with this golden message."""
    who = volunteer()
    who.key = who.account_key
    made = who.ok("POST", "/containers", golden(name)["request"])
    who.id, who.key, who.life = made["id"], made["key"], made["life"]
    return who


@pytest.mark.mongo
def test_the_first_client_is_given_no_chunk_that_it_would_compute_wrongly(
    scientist: Any, volunteer: Any
) -> None:
    sha256 = scientist.blob(b"x = 1\n")
    beyond = {
        scientist.running(2, inputs={"code.py": sha256}),
        scientist.running(body=b"a,b\n1," + sha256.encode() + b"\n", inputs={"f": "{b}"}),
        scientist.running(2, outputs=["*"]),
        scientist.running(2, memory_mb=100),
        scientist.running(body=b"a,b\n1," + b"x" * 100_000 + b"\n"),
        scientist.running(2, requires={"room": "attic", "gpu": {"at_least": 0}}),
    }
    first = registered(volunteer, "register")

    none = first.claim(8)
    plain = scientist.running(2)
    given = {one["id"].partition(".")[0] for one in first.claim(8)}

    assert none == [] and given == {plain}
    now = volunteer(resources={"memory_mb": 512}, labels={"room": "attic", "gpu": 0})
    assert {one["id"].partition(".")[0] for _ in range(8) for one in now.claim(8)} == beyond


@pytest.mark.mongo
def test_what_asks_for_graphics_processors_says_so_to_who_knows_of_them(
    scientist: Any, volunteer: Any
) -> None:
    scientist.running(1, requires={"gpu": {"at_least": 1}})
    who = volunteer(labels={"gpu": 1})

    heard = who.call("POST", "/next", golden("next_gpu")["request"]).get_json()

    [told], [expected] = heard["jobs"].values(), golden("next_gpu")["response"]["jobs"].values()
    assert set(told) == set(expected) and told["gpu"] is True


@pytest.mark.mongo
def test_idle_ended_and_outdated_clients_hear_what_the_goldens_say(volunteer: Any) -> None:
    who = volunteer()

    nothing = who.call("POST", "/next", golden("next_nothing")["request"])
    ended = who.call("POST", "/heartbeat", golden("life_ended")["request"])
    who.key = who.account_key
    outdated = who.call("POST", "/containers", golden("too_old")["request"])

    assert nothing.status_code == 204 and nothing.headers["Retry-After"] == "1"
    assert (ended.status_code, ended.get_json()) == (410, golden("life_ended")["response"])
    assert (outdated.status_code, outdated.get_json()) == (426, golden("too_old")["response"])


def test_placeholders_are_read_as_the_vectors_say() -> None:
    vectors = golden("placeholders")

    for case in vectors["cases"]:
        fields = json.loads(case["input"])
        assert placeholders(case["action"]) <= set(fields)
    for case in vectors["missing"]:
        assert placeholders(case["action"]) - set(json.loads(case["input"])) == {case["name"]}
    for action in vectors["bad_actions"]:
        with pytest.raises(BadAction):
            placeholders(action)


def test_seeds_are_what_the_page_says() -> None:
    for case in golden("seeds")["cases"]:
        first_four = hashlib.sha256(case["chunk"].encode()).digest()[:4]
        assert case["seed"] == str(int.from_bytes(first_four, "big"))
