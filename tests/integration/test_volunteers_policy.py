"""A container says what its volunteer allows; the scheduler keeps to it, and scientists are told."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from source_server.services.containers.live import LiveContainers
from source_server.services.dispatch.turns import Turns

pytestmark = pytest.mark.mongo

IMAGE = "sha256:" + "4f" * 32


def test_only_projects_that_are_allowed_come(scientist: Any, volunteer: Any) -> None:
    scientist.running(2, project="sums")
    fits = scientist.running(2, project="fits")
    who = volunteer(policy={"projects": ["fits"], "shares": {}})

    chunks = who.claim(10)

    assert {one["id"].split(".")[0] for one in chunks} == {fits}


def test_a_job_without_an_image_goes_to_none_but_the_process_runtime(scientist: Any, volunteer: Any) -> None:
    scientist.running(1)
    sandboxed, plain = volunteer(runtimes=["sandbox"]), volunteer()

    assert sandboxed.claim(1) == [] and len(plain.claim(1)) == 1


def test_a_registration_of_last_year_allows_everything(scientist: Any, volunteer: Any, stores: Any) -> None:
    who = volunteer()

    found = stores.containers.find(who.id)

    assert (found.projects, found.shares, found.self_test, found.cannot) == (None, {}, "unknown", {})


def test_an_image_that_the_host_refuses_stays_away_until_the_host_says_otherwise(
    scientist: Any, volunteer: Any, app: Any
) -> None:
    task = scientist.running(2, image=IMAGE)
    who = volunteer(runtimes=["sandbox"])
    who.beats += 1
    body = {"life": who.life, "beat": who.beats, "held": {}, "started": [], "paused": False}
    sentence = "image too large here: 7.1 GB unpacked, at most 5.0 GB\n\x1b[31m" + "x" * 500

    assert who.call("POST", "/heartbeat", {**body, "cannot": {IMAGE: sentence}}).status_code == 200
    refused, why = who.claim(1), scientist.ok("GET", f"/chunks/{task}.0/why")
    who.beat()
    taken = who.claim(1)

    assert refused == [] and len(taken) == 1
    told = " ".join([why["summary"], *why["reasons"]])
    assert "image too large here: 7.1 GB unpacked, at most 5.0 GB" in told
    assert "\x1b" not in told and "x" * 301 not in told


def test_seventeen_refusals_are_too_many(volunteer: Any) -> None:
    who = volunteer()
    cannot = {f"sha256:{number:064}": "no" for number in range(17)}
    body = {"life": who.life, "beat": 1, "held": {}, "started": [], "cannot": cannot}

    assert who.call("POST", "/heartbeat", body).status_code == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": {"projects": "sums"}},
        {"policy": {"shares": {"sums": -1}}},
        {"policy": {"shares": {"sums": "much"}}},
        {"policy": None},
        {"self_test": "great"},
    ],
)
def test_what_is_no_policy_is_refused(volunteer: Any, wrong: Any) -> None:
    who = volunteer()
    body = {"protocol": 1, "id": who.id, "host": {"id": who.host}, **wrong}
    who.key = who.account_key

    assert who.call("POST", "/containers", body).status_code == 400


def test_a_volunteers_weights_decide_whose_turn_it_is_for_that_volunteer_alone(
    scientist: Any, volunteer: Any, stores: Any
) -> None:
    for name in ("a", "b"):
        scientist.ok("POST", "/projects", {"name": name})
        stores.projects.use(name, {"a": 100.0, "b": 50.0}[name], stores.clock.now(), at_least=0.0)
    turns = Turns(stores)

    order = [one.id for one in turns.projects(["a", "b"])]
    weighed = [one.id for one in turns.projects(["a", "b"], {"a": 3.0})]

    assert (order, weighed) == (["b", "a"], ["a", "b"])
    a, b = scientist.running(5, project="a"), scientist.running(5, project="b")
    keen, other = volunteer(policy={"shares": {"a": 3.0}}), volunteer()
    assert other.claim(1)[0]["id"].startswith(b)
    assert keen.claim(1)[0]["id"].startswith(a)


def test_each_result_tells_what_the_server_knew_of_the_sandbox_when_it_came(
    scientist: Any, volunteer: Any, app: Any
) -> None:
    task = scientist.running(3)
    tested, failed, old = volunteer(self_test="passed"), volunteer(self_test="failed"), volunteer()
    for who in (tested, failed, old):
        [chunk] = who.claim(1)
        # Its own word in the attempt is not asked for.
        assert who.add({**who.attempt(chunk), "self_test": "passed"}).status_code == 200

    table = list(csv.DictReader(io.StringIO(scientist.call("GET", f"/results.csv?task={task}").text)))

    assert {(row["container"], row["self_test"]) for row in table} == {
        (tested.id, "passed"),
        (failed.id, "failed"),
        (old.id, "unknown"),
    }
    header = list(table[0])
    assert header[header.index("runtime") + 1] == "self_test"


def test_people_see_what_a_container_allows(scientist: Any, volunteer: Any) -> None:
    who = volunteer(policy={"projects": ["sums"], "shares": {"sums": 2}}, self_test="passed")

    [seen] = [one for one in scientist.ok("GET", "/containers")["containers"] if one["id"] == who.id]

    assert seen["policy"] == {"projects": ["sums"], "shares": {"sums": 2.0}}
    assert (seen["self_test"], seen["cannot"]) == ("passed", {})


@pytest.mark.parametrize(
    ("image", "good"),
    [
        (IMAGE, True),
        (f"registry.example/fits@{IMAGE}", True),
        (f"127.0.0.1:5000/a/b-c@{IMAGE}", True),
        (f"registry:5000/fits@{IMAGE}", True),
        (f"localhost/fits@{IMAGE}", True),
        ("registry.example/fits:latest", False),
        (f"registry.example/fits:latest@{IMAGE}", False),
        (f"fits@{IMAGE}", False),
        (f"registry.example/../fits@{IMAGE}", False),
        (f"registry.example/fits@{IMAGE} --privileged", False),
        (f"https://registry.example/fits@{IMAGE}", False),
    ],
)
def test_a_job_names_its_image_by_id_or_by_digest_in_a_registry(
    scientist: Any, image: str, good: bool
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    made = scientist.call("POST", "/projects/sums/tasks", {"action": ["fit"], "image": image})

    assert made.status_code == (201 if good else 400), made.text


def test_an_image_may_bring_its_own_command_which_takes_a_sandbox(
    scientist: Any, volunteer: Any, stores: Any
) -> None:
    nothing = scientist.call("POST", "/projects/sums/tasks", {"action": []})
    task = scientist.running(1, action=[], image=IMAGE)
    its_own, sandboxed = volunteer(image=IMAGE), volunteer(runtimes=["sandbox"])

    assert nothing.status_code in (400, 404)
    assert its_own.claim(1) == []
    assert [one["id"] for one in sandboxed.claim(1)] == [f"{task}.0"]
    assert LiveContainers(stores).now().fitting(stores.tasks.find(task))[0].id == sandboxed.id
