"""What strangers and other scientists send has its bounds: questions to validators, tasks on offer, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper
from source_server.stores.tasks import OFFERED

Volunteers = Callable[..., Volunteer]
COMPARATOR = {"kind": "validator", "validator": {"action": ["/opt/compare"]}}
RULE = {"quorum": 2, "replicas": 2, "comparator": COMPARATOR}
LARGE_CROWD = {**RULE, "replicas": 12, "most": 16, "distinct": "container"}


@pytest.fixture
def people(app: Any, new_key: Callable[[str], str]) -> Volunteers:
    """Makes volunteers, each of an account of its own."""
    return lambda **extra: Volunteer(app, new_key("volunteer"), **extra)


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def state_of(raw: Any, chunk: str) -> str:
    return str(raw.chunks.find_one({"_id": chunk}, {"state": 1})["state"])


def large_answers(volunteer: Volunteers) -> list[Any]:
    """Ten answers to one chunk that no question has room for, and two small ones; what was said to each."""
    crowd = [volunteer() for _ in range(12)]
    held = [who.claim()[0] for who in crowd]
    texts = ["\x01" * (256 * 1024 - 2) + f"{n:02}" for n in range(10)] + ["1\n", "1.0\n"]
    return [who.add(who.attempt(chunk, text)) for who, chunk, text in zip(crowd, held, texts, strict=True)]


def test_answers_that_are_too_large_for_a_question_do_not_keep_it_from_being_asked(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, validation=LARGE_CROWD)

    assert [one.status_code for one in large_answers(volunteer)] == [200] * 12
    asked = json.loads(raw.chunks.find_one({"_id": f"{task}-v.0"})["input"])
    assert asked["answers"] == [None] * 10 + ["1\n", "1.0\n"]


def test_an_answer_that_was_not_shown_is_worth_nothing_whatever_the_validator_says_of_it(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, validation=LARGE_CROWD)
    large_answers(volunteer)
    judge = volunteer()
    stores.containers.set_trusted(judge.id, True)

    [question] = judge.claim()
    judge.add(judge.attempt(question, json.dumps([0] * 10 + [1, 1])))

    accepted = raw.chunks.find_one({"_id": f"{task}.0"})["result"]
    assert raw.results.find_one({"_id": accepted})["answer"] == "1\n"


def test_an_input_that_is_deeper_than_a_parser_bears_is_compared_like_any_other(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task = scientist.running(1, validation=RULE)
    deep = '{"x": ' + "[" * 30_000 + "]" * 30_000 + "}"
    raw.chunks.update_one({"_id": f"{task}.0"}, {"$set": {"input": deep}})
    for who in (people(), people()):
        [chunk] = who.claim()
        assert who.add(who.attempt(chunk)).status_code == 200
    judge = people()
    stores.containers.set_trusted(judge.id, True)

    [question] = judge.claim()
    said = judge.add(judge.attempt(question, "[0, 0]"))

    assert deep in question["input"]
    assert said.status_code == 200 and state_of(raw, f"{task}.0") == "done"


def test_a_question_that_cannot_be_asked_again_leaves_its_chunk_validating(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    from source_server.services.tasks.validate import Validate

    task = scientist.running(1, validation=RULE)
    for who in (people(), people()):
        [chunk] = who.claim()
        who.add(who.attempt(chunk))
    raw.chunks.update_one({"_id": f"{task}-v.0"}, {"$set": {"state": "cancelled", "input": "old"}})

    Validate(stores).request(stores.tasks.find(task), stores.chunks.find(f"{task}.0"))

    assert (state_of(raw, f"{task}.0"), state_of(raw, f"{task}-v.0")) == ("validating", "cancelled")


# --- validators' tasks


def test_a_validators_task_waits_until_there_is_something_to_compare_and_ends_with_its_task(
    scientist: Scientist, people: Volunteers, stores: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(1, validation=RULE)
    companion = f"{task}-v"
    at_first = stores.tasks.find(companion).state.value
    offered_at_first = {one.id for one in stores.tasks.on_offer(limit=100)}
    looked_at = {one.id for one in stores.unfinished.running("", limit=100).tasks}
    for who in (people(), people()):
        [chunk] = who.claim()
        who.add(who.attempt(chunk))
    asked = stores.tasks.find(companion).state.value
    judge = people()
    stores.containers.set_trusted(judge.id, True)
    [question] = judge.claim()

    judge.add(judge.attempt(question, "[0, 0]"))
    keeper.tasks()

    assert (at_first, asked) == ("waiting", "running")
    assert companion not in offered_at_first | looked_at
    assert stores.tasks.find(task).state.value == "complete"
    assert stores.tasks.find(companion).state.value == "complete"


@pytest.mark.parametrize("started", [True, False])
def test_a_validators_task_that_was_never_needed_ends_with_its_cancelled_task(
    scientist: Scientist, stores: Any, keeper: Housekeeper, started: bool
) -> None:
    task = (scientist.running if started else scientist.task)(1, validation=RULE)
    scientist.ok("POST", f"/tasks/{task}/cancel")

    for _ in range(3):
        keeper.tasks()

    assert {stores.tasks.find(one).state.value for one in (task, f"{task}-v")} == {"complete"}


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "cancel"])
def test_a_validators_task_is_not_steered_by_itself(scientist: Scientist, stores: Any, verb: str) -> None:
    task = scientist.task(1, validation=RULE)
    before = stores.tasks.find(f"{task}-v")

    refused = scientist.call("POST", f"/tasks/{task}-v/{verb}")

    assert refused.status_code == 409
    assert refused.get_json()["error"] == f"This only compares answers of the task {task}: steer that one."
    assert stores.tasks.find(f"{task}-v") == before


# --- tasks on offer


def test_ten_thousand_tasks_of_one_scientist_hide_nobodys(
    app: Any, scientist: Scientist, people: Volunteers, new_key: Any, stores: Any, raw: Any
) -> None:
    crowding = scientist.running(1, project="crowd")
    like = raw.tasks.find_one({"_id": crowding})
    copies = [{**like, "_id": f"copy{n}"} for n in range(10_000)]
    raw.tasks.insert_many([{**one, "priority": 5 if one["_id"] == "copy9999" else 0} for one in copies])
    late = Scientist(app, new_key("scientist")).running(1, project="late")

    offered = stores.tasks.on_offer(limit=10_000)

    of_crowd = [one.id for one in offered if one.project == "crowd"]
    assert late in {one.id for one in offered}
    assert len(of_crowd) == OFFERED and "copy9999" in of_crowd
    assert late in {one.id for one in stores.tasks.on_offer(limit=2)}


def test_paused_tasks_are_on_offer_behind_the_others_of_their_project(
    scientist: Scientist, stores: Any, raw: Any
) -> None:
    first = scientist.running(1)
    like = raw.tasks.find_one({"_id": first})
    raw.tasks.insert_many([{**like, "_id": f"copy{n}", "paused": True} for n in range(OFFERED + 100)])
    later = like["started"] + timedelta(hours=1)
    raw.tasks.insert_one({**like, "_id": "last", "started": later, "priority": -5})

    offered = [one.id for one in stores.tasks.on_offer(limit=10_000)]

    assert len(offered) == OFFERED and {first, "last"} < set(offered)


# --- what is kept of tasks, and what they may ask for


def test_what_verdicts_know_of_tasks_is_small(scientist: Scientist, stores: Any) -> None:
    from source_server.services.answers.known_tasks import KnownTasks

    large = {"action": ["/bin/cat", "x" * 10_000], "env": {"A": "y" * 10_000}, "timeout_s": 7}
    needs = {"requires": {"arch": "x86_64"}, "validation": RULE}
    task = scientist.running(1, **large, **needs)
    whole = stores.tasks.find(task)

    known = KnownTasks(stores).read([task])[task]

    assert (known.job.action, known.job.env, known.fields) == ((), {}, ())
    assert known.validator is not None and known.validator.action == ()
    assert (known.validation, known.job.requires) == (whole.validation, whole.job.requires)
    assert (known.job.timeout_s, known.project, known.validates) == (7.0, "sums", None)


@pytest.mark.parametrize("timeout", [1e-310, 0.0009, 0])
def test_a_timeout_of_less_than_a_millisecond_is_refused(scientist: Scientist, timeout: float) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    refused = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "timeout_s": timeout})

    assert refused.status_code == 400 and "timeout_s" in refused.get_json()["error"]
