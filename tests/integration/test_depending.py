"""Tasks that come after others, over a real MongoDB: waiting, starting, being cancelled; never in a circle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from people import Person, Scientist, Volunteer

from source_server.housekeeping import Housekeeper

ROWS = b"a,b\n1,2\n"


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def wish(scientist: Person, name: str, *after: str) -> Any:
    """The answer to the wish for a task of this id that comes after these."""
    scientist.call("POST", "/projects", {"name": "sums"})
    body = {"id": name, "action": ["/bin/cat"], "after_tasks": list(after)}
    return scientist.call("POST", "/projects/sums/tasks", body)


def task(scientist: Scientist, name: str, *after: str, start: bool = True) -> str:
    """A task with one row that comes after these."""
    made = wish(scientist, name, *after)
    assert made.status_code == 201, made.text
    scientist.ok("PUT", f"/tasks/{name}/chunks/one", data=ROWS, content_type="text/csv")
    if start:
        scientist.ok("POST", f"/tasks/{name}/start")
    return name


def compute(who: Volunteer) -> list[str]:
    """Answer what is handed out; the tasks whose chunks that were."""
    chunks = who.claim(10)
    for chunk in chunks:
        assert who.add(who.attempt(chunk)).status_code == 200
    return sorted(chunk["id"].partition(".")[0] for chunk in chunks)


def state(scientist: Scientist, name: str) -> tuple[str, str | None]:
    shown = scientist.ok("GET", f"/tasks/{name}")
    return shown["state"], shown["outcome"]


def test_a_started_task_waits_until_those_that_it_comes_after_have_succeeded_and_then_starts_by_itself(
    scientist: Scientist, volunteer: Callable[..., Volunteer]
) -> None:
    task(scientist, "first"), task(scientist, "second")
    task(scientist, "third", "first", "second")
    who = volunteer()
    before = scientist.ok("GET", "/tasks/third")

    assert compute(who) == ["first", "second"]
    assert (before["state"], before["start_wanted"]) == ("waiting", True)
    assert state(scientist, "third") == ("running", None)
    assert compute(volunteer()) == ["third"]


def test_one_that_was_not_started_does_not_start_by_itself(
    scientist: Scientist, volunteer: Callable[..., Volunteer], keeper: Housekeeper
) -> None:
    task(scientist, "first")
    task(scientist, "second", "first", start=False)

    compute(volunteer())
    keeper.dependencies()
    keeper.tasks()

    assert state(scientist, "second") == ("waiting", None)
    scientist.ok("POST", "/tasks/second/start")
    assert state(scientist, "second") == ("running", None)


@pytest.mark.parametrize(("end", "sentence"), [("failed", "has failed"), ("cancelled", "was cancelled")])
def test_when_one_of_them_ends_otherwise_it_is_cancelled_with_those_that_come_after_it_and_says_why(
    scientist: Scientist,
    volunteer: Callable[..., Volunteer],
    raw: Any,
    keeper: Housekeeper,
    end: str,
    sentence: str,
) -> None:
    task(scientist, "first")
    task(scientist, "second", "first"), task(scientist, "third", "second")
    if end == "cancelled":
        scientist.ok("POST", "/tasks/first/cancel")
    else:
        raw.chunks.update_one({"_id": "first.0"}, {"$set": {"state": "quarantined", "wanted": 0}})
    for _ in range(6):
        keeper.dependencies()
        keeper.tasks()

    assert state(scientist, "first") == ("complete", end)
    assert state(scientist, "second") == state(scientist, "third") == ("complete", "cancelled")
    assert (
        scientist.ok("GET", "/tasks/second")["cancelled_why"]
        == f"It comes after the task first, which {sentence}."
    )
    why = scientist.ok("GET", "/chunks/second.0/why")
    assert why["reasons"] == [f"It comes after the task first, which {sentence}."]


def test_a_task_that_does_not_exist_yet_is_waited_for_and_why_says_so(
    scientist: Scientist, volunteer: Callable[..., Volunteer], keeper: Housekeeper
) -> None:
    task(scientist, "second", "first")
    keeper.dependencies()
    keeper.tasks()
    why = scientist.ok("GET", "/chunks/second.0/why")

    task(scientist, "first")
    compute(volunteer())

    assert why["summary"] == "Its task was started, and waits for other tasks."
    assert why["reasons"] == ["It comes after the task first, which does not exist yet."]
    assert state(scientist, "second") == ("running", None)


def test_assigning_respects_what_comes_first(
    scientist: Scientist, volunteer: Callable[..., Volunteer]
) -> None:
    task(scientist, "first", start=False), task(scientist, "second", "first", start=False)
    who = volunteer()

    deal = scientist.ok("POST", "/assign/all")

    assert deal["dealt"] == {who.id: 1}
    assert scientist.ok("GET", "/tasks/second")["start_wanted"] is True
    compute(who)
    assert state(scientist, "second") == ("running", None)


def test_what_a_crash_swallowed_at_the_end_of_one_is_found_by_housekeeping(
    scientist: Scientist, raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    task(scientist, "first"), task(scientist, "second", "first")
    change = {"state": "complete", "outcome": "succeeded", "ended": stores.clock.now()}
    raw.tasks.update_one({"_id": "first"}, {"$set": change})

    keeper.dependencies()
    keeper.tasks()

    assert state(scientist, "second") == ("running", None)


def test_a_circle_is_refused_and_the_task_that_would_close_it_is_not_there(
    scientist: Scientist, raw: Any
) -> None:
    wish(scientist, "first", "third"), wish(scientist, "second", "first")

    closing = wish(scientist, "third", "second")
    itself = wish(scientist, "fourth", "fourth")

    assert closing.status_code == itself.status_code == 409
    assert closing.get_json()["error"] == (
        "This task would come after itself: third, which comes after second, which comes after first, which comes "
        "after third."
    )
    assert sorted(one["_id"] for one in raw.tasks.find()) == ["first", "second"]
    assert wish(scientist, "third").status_code == 201


def test_of_two_that_close_a_circle_at_the_same_moment_not_both_are_made(
    app: Any, scientist: Scientist, raw: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    for n in range(10):
        names, answers = [f"a{n}", f"b{n}"], list[int]()
        barrier = threading.Barrier(2)

        def make(name: str, other: str, barrier: threading.Barrier, answers: list[int]) -> None:
            caller = Person(app, scientist.key)
            barrier.wait()
            answers.append(wish(caller, name, other).status_code)

        pair = [(names[0], names[1]), (names[1], names[0])]
        threads = [threading.Thread(target=make, args=(*one, barrier, answers)) for one in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 409 in answers and set(answers) <= {201, 409}
        assert raw.tasks.count_documents({"_id": {"$in": names}}) == answers.count(201)


def test_a_circle_that_a_crash_left_is_refused_to_whoever_says_the_same_again_or_starts_it(
    scientist: Scientist, stores: Any, raw: Any
) -> None:
    wish(scientist, "first", "second")
    task(scientist, "second", start=False)
    raw.tasks.update_one({"_id": "second"}, {"$set": {"after_tasks": ["first"]}})

    started = scientist.call("POST", "/tasks/second/start")
    again = wish(scientist, "first", "second")

    assert started.status_code == again.status_code == 409
    assert "would come after itself" in again.get_json()["error"]


def test_more_tasks_before_one_than_are_followed_are_refused_but_those_that_succeeded_do_not_count(
    scientist: Scientist, raw: Any
) -> None:
    wish(scientist, "own")
    own = raw.tasks.find_one({"_id": "own"})
    names = [f"n{n}" for n in range(101)]
    raw.tasks.insert_many(
        {**own, "_id": one, "after_tasks": [f"{one}x{m}" for m in range(100)]} for one in names
    )
    halves = [wish(scientist, f"half{at}", *names[at : at + 51]).status_code for at in (0, 51)]

    refused = wish(scientist, "all", "half0", "half51")
    there = raw.tasks.count_documents({"_id": "all"})
    raw.tasks.update_many({"_id": {"$in": names}}, {"$set": {"state": "complete", "outcome": "succeeded"}})

    assert halves == [201, 201] and refused.status_code == 409 and there == 0
    assert "more than 10,000 tasks" in refused.get_json()["error"]
    assert wish(scientist, "all", "half0", "half51").status_code == 201


def test_anothers_task_is_no_task_to_come_after(app: Any, new_key: Any, scientist: Scientist) -> None:
    other = Scientist(app, new_key("scientist"))
    other.ok("POST", "/projects", {"name": "theirs"})
    other.ok("POST", "/projects/theirs/tasks", {"id": "hers", "action": ["/bin/cat"]})

    answer = wish(scientist, "mine", "hers")

    assert answer.status_code == 404 and "no task hers of yours" in answer.get_json()["error"]


def test_a_name_that_somebody_else_takes_later_is_as_good_as_none(
    app: Any, new_key: Any, scientist: Scientist, volunteer: Callable[..., Volunteer], keeper: Housekeeper
) -> None:
    task(scientist, "mine", "wanted")
    other = Scientist(app, new_key("scientist"))
    other.ok("POST", "/projects", {"name": "theirs"})
    other.ok("POST", "/projects/theirs/tasks", {"id": "wanted", "action": ["/bin/cat"]})
    other.ok("PUT", "/tasks/wanted/chunks/one", data=ROWS, content_type="text/csv")
    other.ok("POST", "/tasks/wanted/start")

    assert compute(volunteer()) == ["wanted"]
    keeper.dependencies()
    keeper.tasks()

    assert state(scientist, "mine") == ("waiting", None)


def test_a_task_that_waits_for_others_can_be_cancelled(scientist: Scientist, keeper: Housekeeper) -> None:
    task(scientist, "first", start=False), task(scientist, "second", "first")

    scientist.ok("POST", "/tasks/second/cancel")
    keeper.tasks(), keeper.tasks()

    assert state(scientist, "second") == ("complete", "cancelled")
