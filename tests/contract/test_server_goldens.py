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

GOLDENS = Path(__file__).parent / "v1"

SHAPES = {
    "register": wire.RegisterBody,
    "register_sandbox": wire.RegisterBody,
    "heartbeat": wire.HeartbeatBody,
    "heartbeat_cannot": wire.HeartbeatBody,
    "next": wire.NextBody,
    "next_archive": wire.NextBody,
    "next_nothing": wire.NextBody,
    "add": wire.AddBody,
    "add_refused": wire.AddBody,
    "next_files": wire.NextBody,
    "add_files": wire.AddBody,
    "add_files_first": wire.AddBody,
    "release": wire.ReleaseBody,
    "life_ended": wire.HeartbeatBody,
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
        wire.read(wire.AttemptBody, attempt)


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
