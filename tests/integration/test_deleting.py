"""Deleting tasks over a real MongoDB: at once nobody's, then removed; nothing of one counts for the next of its id."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper
from source_server.stores.removals import RUNS

ROWS = b"a,b\n1,2\n3,4\n"
AFTER = {"after": {"action": ["/bin/report"]}}
COLLECTIONS = ("tasks", "chunks", "results", "errors", "error_groups", "paces")


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def made(scientist: Scientist, name: str, **rest: Any) -> str:
    """A running task with two rows."""
    scientist.ok("POST", "/projects", {"name": "sums"})
    scientist.ok("POST", "/projects/sums/tasks", {"id": name, "action": ["/bin/cat"], **rest})
    scientist.ok("PUT", f"/tasks/{name}/chunks/one", data=ROWS, content_type="text/csv")
    scientist.ok("POST", f"/tasks/{name}/start")
    return name


def complete(scientist: Scientist, who: Volunteer, name: str) -> None:
    """Answer everything, reactions too."""
    for _ in range(10):
        for chunk in who.claim(10):
            who.add(who.attempt(chunk))
        shown = scientist.ok("GET", f"/tasks/{name}")
        if shown["state"] == "complete" and not shown["reacting"]:
            return
    raise AssertionError("it does not end")


def pass_time(raw: Any, stores: Any, name: str) -> None:
    """Let the wait before a deleted task's id is free be over."""
    long_ago = stores.clock.now() - timedelta(minutes=5)
    raw.tasks.update_one({"_id": name, "deleting": {"$ne": None}}, {"$set": {"deleting": long_ago}})


def left(raw: Any, name: str) -> dict[str, int]:
    """What there is of a task, by collection."""
    mine = {"$regex": f"^{name}([.]|-|$)"}
    query = {"$or": [{"_id": mine}, {"task": mine}, {"chunk": mine}]}
    found = {one: raw[one].count_documents(query) for one in COLLECTIONS}
    return {one: count for one, count in found.items() if count}


def test_a_deleted_task_is_nobodys_at_once_and_nothing_of_it_stays(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    name, other = made(scientist, "old", **AFTER), made(scientist, "old2")
    who = volunteer()
    [chunk] = who.claim(1)
    who.add(who.failure(chunk))
    raw.chunks.update_many({"state": "delayed"}, {"$set": {"state": "ready", "not_before": None}})
    complete(scientist, who, name)
    kept = left(raw, other)

    answer = scientist.call("DELETE", f"/tasks/{name}")
    half = [
        scientist.call("GET", path).status_code for path in (f"/tasks/{name}", f"/results.csv?task={name}")
    ]
    half += [scientist.call("GET", f"/chunks/{name}.0/{what}").status_code for what in ("why", "attempts")]
    listed = [one["id"] for one in scientist.ok("GET", "/tasks")["tasks"]]
    taken = scientist.call("POST", "/projects/sums/tasks", {"id": name, "action": ["/bin/cat"]})
    for _ in range(12):
        keeper.removals()
    waits = left(raw, name)
    pass_time(raw, stores, name)
    keeper.removals()

    assert (answer.status_code, answer.get_json()) == (202, {"deleted": name})
    assert set(half) == {404} and listed == [other]
    assert taken.status_code == 409 and "is being deleted" in taken.get_json()["error"]
    assert waits == {"tasks": 1} and left(raw, name) == {}
    assert left(raw, other) == kept


def test_a_running_task_or_one_that_reacts_is_not_deleted(
    scientist: Scientist, volunteer: Callable[..., Volunteer]
) -> None:
    name, who = made(scientist, "busy", **AFTER), volunteer()

    running = scientist.call("DELETE", f"/tasks/{name}")
    for chunk in who.claim(10):
        who.add(who.attempt(chunk))
    reacting = scientist.call("DELETE", f"/tasks/{name}")
    complete(scientist, who, name)

    assert running.status_code == reacting.status_code == 409
    assert "cancel it first" in running.get_json()["error"]
    assert scientist.call("DELETE", f"/tasks/{name}").status_code == 202
    assert scientist.call("DELETE", f"/tasks/{name}").status_code == 404


def test_a_waiting_task_is_deleted_and_never_starts_or_ends(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    task = scientist.task(3, after=AFTER["after"])

    assert scientist.call("DELETE", f"/tasks/{task}").status_code == 202
    keeper.tasks(), keeper.reactions(), keeper.removals()

    assert scientist.call("POST", f"/tasks/{task}/start").status_code == 404
    assert stores.tasks.start(task, stores.clock.now()) is False
    assert volunteer().claim() == []
    pass_time(raw, stores, task)
    keeper.removals()
    assert left(raw, task) == {}


def test_an_answer_to_a_deleted_task_never_counts_for_the_next_one_of_its_id(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    name = made(scientist, "commit")
    late, who = volunteer(), volunteer()
    held = late.claim(2)
    raw.chunks.update_many({}, {"$set": {"leases": [], "wanted": 1, "state": "ready"}})
    complete(scientist, who, name)
    scientist.call("DELETE", f"/tasks/{name}")
    for _ in range(4):
        keeper.removals()
    gone = late.add(late.attempt(held[0], "of the old one\n"))
    pass_time(raw, stores, name)
    keeper.removals()

    assert made(scientist, name) == name
    answer = late.add(late.attempt(held[0], "of the old one\n"))
    keeper.verdicts()

    assert gone.status_code == 404 and answer.status_code in (200, 403)
    assert [one["result"] for one in raw.chunks.find({"task": name})] == [None, None]
    assert {one["run"] for one in raw.chunks.find({"task": name})} == {RUNS}
    complete(scientist, who, name)
    assert "of the old one" not in scientist.call("GET", f"/results.csv?task={name}").text


def test_deleting_goes_on_where_a_crash_broke_it_off(
    scientist: Scientist, volunteer: Callable[..., Volunteer], raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    name, who = made(scientist, "old"), volunteer()
    complete(scientist, who, name)
    assert stores.removals.mark(name, stores.clock.now()) and not stores.removals.mark(
        name, stores.clock.now()
    )

    for _ in range(20):
        stores.removals.remove_some(name, None)  # and dies, every time
        keeper.removals()
        pass_time(raw, stores, name)

    assert left(raw, name) == {}


def test_an_upload_that_is_under_way_keeps_a_deleted_tasks_id_until_it_has_been_silent(
    scientist: Scientist, raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    scientist.ok("POST", "/projects/sums/tasks", {"id": "slow", "action": ["/bin/cat"]})
    now = stores.clock.now()
    upload = {"id": "u", "attempt": "x", "complete": False, "ended": False, "touched": now, "digest": None}
    raw.tasks.update_one({"_id": "slow"}, {"$set": {"upload": {**upload, "chunks": 0, "rows": 0}}})
    scientist.call("DELETE", "/tasks/slow")
    pass_time(raw, stores, "slow")

    keeper.removals()
    kept = left(raw, "slow")
    raw.tasks.update_one({}, {"$set": {"upload.touched": now - timedelta(minutes=5)}})
    keeper.removals()

    assert kept == {"tasks": 1} and left(raw, "slow") == {}
