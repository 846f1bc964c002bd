"""Quorum, comparators, the validator, adaptive replication and trust, through the app on a real mongod."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper

Volunteers = Callable[..., Volunteer]
LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def people(app: Any, new_key: Callable[[str], str]) -> Volunteers:
    """Makes volunteers, each of an account of its own."""

    def make(**extra: Any) -> Volunteer:
        return Volunteer(app, new_key("volunteer"), **extra)

    return make


def quorum(scientist: Scientist, rows: int = 1, **validation: Any) -> str:
    rule = {"quorum": 2, **validation}
    return scientist.running(rows, validation=rule)


def chunk_of(raw: Any, task: str, n: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = raw.chunks.find_one({"_id": f"{task}.{n}"})
    return found


def verdicts(raw: Any, task: str) -> dict[str, str]:
    """container -> verdict of its newest result."""
    return {one["container"]: one["verdict"] for one in raw.results.find({"task": task}).sort("stored")}


def answer(who: Volunteer, text: str) -> None:
    """Claim one chunk and answer it; for two seconds a server may believe that a task has none ready."""
    deadline = time.monotonic() + 60
    while not (chunks := who.claim()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [chunk] = chunks
    assert who.add(who.attempt(chunk, text)).status_code == 200


def test_the_first_answer_waits_and_an_equal_second_one_settles_the_chunk(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist)
    first, second = people(), people()

    answer(first, "42\n")
    waiting = chunk_of(raw, task)
    answer(second, "42\n")

    assert (waiting["state"], waiting["result"], len(waiting["candidates"])) == ("leased", None, 1) or (
        waiting["state"] == "ready" and waiting["wanted"] == 1
    )
    assert chunk_of(raw, task)["state"] == "done"
    assert verdicts(raw, task) == {first.id: "accepted", second.id: "agreed"}


def test_an_account_never_gets_two_replicas_of_one_chunk(scientist: Scientist, volunteer: Volunteers) -> None:
    quorum(scientist)
    one, other = volunteer(), volunteer()

    assert len(one.claim()) == 1
    assert other.claim() == []


@pytest.mark.parametrize(("distinct", "gets"), [("host", 1), ("container", 1), ("account", 0)])
def test_distinct_says_whether_another_host_of_the_same_account_may_answer(
    scientist: Scientist, volunteer: Volunteers, distinct: str, gets: int
) -> None:
    quorum(scientist, distinct=distinct)
    volunteer().claim()

    assert len(volunteer().claim()) == gets


def test_a_liar_brings_one_more_replica_and_is_blamed_only_when_a_quorum_agrees(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist)
    honest, liar, third = people(), people(), people()

    answer(honest, "42\n")
    answer(liar, "43\n")
    undecided = chunk_of(raw, task)
    before = verdicts(raw, task)
    answer(third, "42\n")

    assert (undecided["state"], undecided["replicas"], undecided["wanted"]) == ("ready", 3, 1)
    assert set(before.values()) == {"candidate"}
    assert verdicts(raw, task) == {honest.id: "accepted", liar.id: "disagreed", third.id: "agreed"}
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_at_the_limit_the_chunk_is_set_aside_with_all_candidates_and_an_error_and_a_late_answer_still_settles_it(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist, most=3)
    crowd = [people() for _ in range(4)]
    held = crowd[3].claim()
    raw.chunks.update_one({"_id": f"{task}.0"}, {"$set": {"leases": [], "wanted": 2, "state": "ready"}})
    for n, who in enumerate(crowd[:3]):
        answer(who, f"{n}\n")
    aside = chunk_of(raw, task)
    [error] = scientist.ok("GET", f"/errors?task={task}")["errors"]

    late = crowd[3].add(crowd[3].attempt(held[0], "1\n"))

    assert (aside["state"], len(aside["candidates"])) == ("quarantined", 3)
    assert error["outcome"] == "disagreement"
    assert late.status_code == 200
    assert chunk_of(raw, task)["state"] == "done"
    assert verdicts(raw, task)[crowd[1].id] == "accepted"
    assert verdicts(raw, task)[crowd[0].id] == "disagreed"


def test_numbers_within_the_tolerance_agree_and_the_earliest_of_them_is_kept(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist, comparator={"kind": "json", "relative": 1e-6})
    first, second = people(), people()

    answer(first, '{"mean": 1.0000001, "n": 3}\n')
    answer(second, '{"n": 3, "mean": 1.0}\n')

    assert verdicts(raw, task) == {first.id: "accepted", second.id: "agreed"}


def test_numbers_beyond_the_tolerance_do_not_agree(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist, comparator={"kind": "json", "absolute": 0.01})

    answer(people(), "1.00\n")
    answer(people(), "1.02\n")

    assert chunk_of(raw, task)["result"] is None
    assert chunk_of(raw, task)["replicas"] == 3


def test_replicas_keep_to_one_platform_where_the_task_asks_for_it(
    scientist: Scientist, people: Volunteers
) -> None:
    quorum(scientist, same="arch")
    intel, another_intel = people(labels={"arch": "x86_64"}), people(labels={"arch": "x86_64"})
    arm = people(labels={"arch": "arm64"})
    intel.claim()

    assert arm.claim() == []
    assert len(another_intel.claim()) == 1


def test_a_platform_that_somebody_made_up_keeps_nobody_out(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist, same="arch")
    answer(people(labels={"arch": "weird"}), "wrong\n")

    for _ in range(2):
        answer(people(labels={"arch": "x86_64"}), "42\n")

    assert chunk_of(raw, task)["state"] == "done"


def test_a_second_answer_of_the_same_account_is_kept_and_does_not_count(
    scientist: Scientist, volunteer: Volunteers, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist)
    one, other = volunteer(), volunteer()
    [chunk] = one.claim()
    raw.chunks.update_one({"_id": f"{task}.0"}, {"$set": {"leases": [], "wanted": 2, "state": "ready"}})
    [again] = other.claim()

    one.add(one.attempt(chunk, "42\n"))
    other.add(other.attempt(again, "42\n"))

    assert chunk_of(raw, task)["result"] is None
    assert verdicts(raw, task) == {one.id: "candidate", other.id: "duplicate"}
    answer(people(), "42\n")
    assert chunk_of(raw, task)["state"] == "done"


def test_with_an_established_account_live_the_last_place_is_kept_for_it(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    veteran, newcomer, another = people(), people(), people()
    account = raw.containers.find_one({"_id": veteran.id})["account"]
    raw.accounts.update_one({"_id": account}, {"$set": {"agreed": 25, "first_agreed": LONG_AGO}})
    quorum(scientist)

    assert len(newcomer.claim()) == 1
    assert another.claim() == []
    assert len(veteran.claim()) == 1


# --- the project's own validator


VALIDATOR = {"kind": "validator", "validator": {"action": ["/opt/same_sign.py"]}}


def test_a_validator_runs_on_a_trusted_container_only_and_decides_what_agrees(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task = quorum(scientist, comparator=VALIDATOR)
    first, second, trusted = people(), people(), people()
    stores.containers.set_trusted(trusted.id, True)
    answer(first, "about 1\n")
    answer(second, "nearly 1\n")
    waiting = chunk_of(raw, task)["state"]

    assert first.claim() == []
    [question] = trusted.claim()
    asked = json.loads(question["input"])
    done = trusted.add(trusted.attempt(question, "[0, 0]\n"))

    assert waiting == "validating"
    assert asked["answers"] == ["about 1\n", "nearly 1\n"]
    assert asked["input"] == {"a": "0", "b": "1"}
    assert done.status_code == 200
    assert verdicts(raw, task) == {first.id: "accepted", second.id: "agreed"}
    assert scientist.ok("GET", f"/tasks/{task}")["state"] == "complete"


def test_a_validator_that_finds_no_agreement_brings_another_replica_and_is_asked_again(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task = quorum(scientist, comparator=VALIDATOR)
    first, second, third, trusted = people(), people(), people(), people()
    stores.containers.set_trusted(trusted.id, True)
    answer(first, "1\n")
    answer(second, "-1\n")
    [question] = trusted.claim()
    trusted.add(trusted.attempt(question, '["plus", "minus"]\n'))

    answer(third, "2\n")
    [again] = [one for one in trusted.claim() if one["id"].startswith(f"{task}-v.")]
    trusted.add(trusted.attempt(again, '["plus", "minus", "plus"]\n'))

    assert (again["id"], again["run"]) == (question["id"], question["run"] + 1)
    assert verdicts(raw, task) == {first.id: "accepted", second.id: "disagreed", third.id: "agreed"}


def test_an_answer_of_the_wrong_form_is_the_validators_error_and_decides_nothing(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task = quorum(scientist, comparator=VALIDATOR)
    trusted = people()
    stores.containers.set_trusted(trusted.id, True)
    for _ in range(2):
        answer(people(), "1\n")
    [question] = trusted.claim()

    trusted.add(trusted.attempt(question, "[0]\n"))

    assert chunk_of(raw, task)["state"] == "validating"
    [error] = scientist.ok("GET", f"/errors?task={task}-v")["errors"]
    assert "JSON list of 2 groups" in error["stderr_tail"]


def test_a_verdict_that_a_crash_swallowed_is_found_by_housekeeping(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task = quorum(scientist)
    first, second = people(), people()
    answer(first, "42\n")
    answer(second, "42\n")
    old = datetime.now(timezone.utc) - timedelta(minutes=1)
    raw.results.update_many({"task": task}, {"$set": {"verdict": "candidate", "stored": old}})

    Housekeeper(stores, beat_s=20.0).verdicts()

    assert verdicts(raw, task) == {first.id: "accepted", second.id: "agreed"}


# --- adaptive replication, suspicion


def trust(raw: Any, who: Volunteer, **record: Any) -> None:
    """Give a volunteer's host a long record of agreement."""
    account = raw.containers.find_one({"_id": who.id})["account"]
    known = {"account": account, "host": who.host, "streak": 10**9, "agreed": 10**9, "limit": 100.0, **record}
    raw.hosts.update_one({"_id": f"{account} {who.host}"}, {"$set": known}, upsert=True)


def test_an_adaptive_task_takes_a_trusted_hosts_word_and_asks_for_a_second_opinion_on_a_newcomers(
    scientist: Scientist, people: Volunteers, raw: Any
) -> None:
    task = quorum(scientist, rows=2, adaptive=True)
    trusted, newcomer = people(), people()
    trust(raw, trusted)

    [first] = trusted.claim()
    trusted.add(trusted.attempt(first, "42\n"))
    [second] = newcomer.claim()
    newcomer.add(newcomer.attempt(second, "42\n"))

    assert chunk_of(raw, task, first["n"])["state"] == "done"
    pending = chunk_of(raw, task, second["n"])
    assert (pending["state"], pending["replicas"]) == ("ready", 2)


def test_a_host_that_disagrees_loses_its_trust_and_its_unchecked_answers_become_suspect(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    adaptive = quorum(scientist, adaptive=True)
    turncoat = people()
    trust(raw, turncoat, last_agreed=LONG_AGO)
    answer(turncoat, "42\n")
    assert chunk_of(raw, adaptive)["state"] == "done"
    checked = quorum(scientist)
    others = [people(), people()]

    answer(turncoat, "wrong\n")
    for other in others:
        answer(other, "42\n")
    Housekeeper(stores, beat_s=20.0).verdicts()

    assert verdicts(raw, checked)[turncoat.id] == "disagreed"
    [row] = scientist.call("GET", f"/results.csv?task={adaptive}").text.splitlines()[1:]
    assert ",suspect," in row
    account = raw.containers.find_one({"_id": turncoat.id})["account"]
    assert raw.hosts.find_one({"_id": f"{account} {turncoat.host}"})["streak"] == 0


# --- the rule's own form


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"quorum": 0}, "quorum"),
        ({"quorum": 2, "replicas": 1}, "replicas must not be less than quorum"),
        ({"quorum": 2, "most": 1}, "most must not be less than replicas"),
        ({"quorum": 1, "adaptive": True}, "need a quorum of at least 2"),
        ({"quorum": 2, "comparator": {"kind": "validator"}}, "go together"),
        ({"quorum": 2, "comparator": {"kind": "exact", "relative": 0.1}}, "a tolerance needs kind 'json'"),
        ({"quorum": 2, "distinct": "planet"}, "distinct"),
        ({"quorum": 2, "comparator": {"kind": "json", "relative": float("nan")}}, "JSON"),
        ({"quorum": 2, "guess": 1}, "There is no field 'validation.guess'"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_in_one_sentence(
    scientist: Scientist, rule: dict[str, Any], sentence: str
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    answer_ = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "validation": rule})

    assert answer_.status_code == 400
    assert sentence in answer_.get_json()["error"]
