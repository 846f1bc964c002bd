"""What housekeeping does every second costs the same however many tasks there are, and leaves none of them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper

Volunteers = Callable[..., Volunteer]
REACTION = {"action": ["/bin/cat"]}


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def asked(raw: Any) -> Iterator[Callable[[], list[int]]]:
    """Documents of tasks that each query has looked at since `listen`."""

    def of_tasks() -> list[int]:
        raw.command("profile", 0)
        found = raw.system.profile.find({"ns": f"{raw.name}.tasks", "op": "query"})
        return [one["docsExamined"] for one in found]

    yield of_tasks
    raw.command("profile", 0)
    raw.system.profile.drop()


def listen(raw: Any) -> None:
    """From here on queries are counted."""
    raw.command("profile", 0)
    raw.system.profile.drop()
    raw.command("profile", 2)


def copies(raw: Any, task: str, count: int, **more: Any) -> list[str]:
    """So many more tasks like this one, without chunks."""
    like = raw.tasks.find_one({"_id": task})
    made = [{**like, "_id": f"copy{n:04}", **more} for n in range(count)]
    raw.tasks.insert_many(made)
    return [one["_id"] for one in made]


def states(raw: Any, ids: list[str]) -> set[str]:
    return set(raw.tasks.distinct("state", {"_id": {"$in": ids}}))


def test_running_tasks_have_their_turn_some_a_step_and_each_within_a_pass(
    scientist: Scientist, raw: Any, keeper: Housekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.tasks.tend_tasks.RUNNING", 3)
    ended = copies(raw, scientist.running(1), 10)  # nothing of them is open: a crash came in between

    keeper.tasks()
    after_one = raw.tasks.count_documents({"_id": {"$in": ended}, "state": "complete"})
    for _ in range(4):
        keeper.tasks()

    assert 0 < after_one <= 3
    assert states(raw, ended) == {"complete"}


def test_a_task_that_cannot_be_read_stops_none_of_the_others(
    scientist: Scientist, raw: Any, keeper: Housekeeper
) -> None:
    running, cancelled = scientist.running(1), scientist.running(2)
    ended = copies(raw, running, 3)
    raw.tasks.update_one({"_id": "copy0000"}, {"$set": {"job": "nonsense", "limits": {"no": "limits"}}})
    raw.tasks.update_one({"_id": "copy0001"}, {"$set": {"validation.quorum": "many"}})
    scientist.ok("POST", f"/tasks/{cancelled}/cancel")

    for step in (
        keeper.tasks,
        keeper.tasks,
        keeper.verdicts,
        keeper.limits,
        keeper.dependencies,
        keeper.redeal,
    ):
        step()

    assert states(raw, [cancelled, ended[2]]) == {"complete"}


def test_a_chunk_that_cannot_be_read_keeps_no_other_from_being_offered_again(
    scientist: Scientist, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(3)
    before = stores.clock.now() - timedelta(seconds=5)
    raw.chunks.update_many({"task": task}, {"$set": {"state": "delayed", "not_before": before}})
    raw.chunks.update_one({"_id": f"{task}.0"}, {"$set": {"leases": "nonsense"}})

    keeper.tasks()

    assert {one["n"] for one in raw.chunks.find({"task": task, "state": "ready"})} == {1, 2}


def test_what_is_looked_at_every_second_comes_without_its_contents(scientist: Scientist, stores: Any) -> None:
    large = {"action": ["/bin/cat", "x" * 10_000], "env": {"A": "y" * 10_000}}
    task = scientist.running(1, **large, requires={"arch": "x86_64"})

    [found] = stores.unfinished.running("", limit=10).tasks

    whole = stores.tasks.find(task)
    assert (found.job.action, found.job.env, found.fields) == ((), {}, ())
    assert (found.job.requires, found.upload) == (whole.job.requires, whole.upload)


def test_each_kind_of_work_is_found_without_looking_at_all_the_other_tasks(
    scientist: Scientist, stores: Any, raw: Any, asked: Callable[[], list[int]]
) -> None:
    task = scientist.running(1)
    copies(raw, task, 2_000)
    few = {
        "copy0300": {"appending": {"key": "k", "n": 0, "texts": [], "fields": []}},
        "copy0301": {"cancelled": True},
        "copy0302": {"state": "waiting", "upload.complete": False},
        "copy0303": {"state": "waiting", "start_wanted": True},
        "copy0304": {"validation.quorum": 2},
        "copy0305": {"dealt": True},
        "copy0306": {"limits": {"cpu_hours": 1, "until": None, "stop_when": None, "then": "pause"}},
        "copy0307": {"ends_as": "failed"},
    }
    for name, change in few.items():
        raw.tasks.update_one({"_id": name}, {"$set": change})
    found, now = stores.unfinished, stores.clock.now() + timedelta(hours=1)
    listen(raw)

    pages = [
        found.appending("", limit=100),
        found.cancelled("", limit=100),
        found.uploading("", quiet_since=now, limit=100),
        found.waiting_for_others("", limit=100),
        found.checked("", limit=100),
        found.dealt_on_offer("", limit=100),
        found.limited("", limit=100),
        found.ending("", limit=100),
    ]

    looked_at = asked()
    assert [[task.id for task in page.tasks] for page in pages] == [[name] for name in few]
    assert len(looked_at) == len(few) and max(looked_at) <= 2


def test_a_page_of_running_tasks_costs_a_page(
    scientist: Scientist, stores: Any, raw: Any, asked: Callable[[], list[int]]
) -> None:
    task = scientist.running(1)
    copies(raw, task, 1_000, state="complete")
    raw.tasks.insert_many(
        [
            {**one, "_id": f"{one['_id']}-b", "state": "running"}
            for one in raw.tasks.find({"state": "complete"})
        ]
    )
    listen(raw)

    page = stores.unfinished.running("", limit=50)

    assert len(page.tasks) == 50 and page.after == page.tasks[-1].id
    assert max(asked()) <= 51


def test_waiting_tasks_that_may_start_are_found_in_two_questions_for_all(
    scientist: Scientist, raw: Any, keeper: Housekeeper, asked: Callable[[], list[int]]
) -> None:
    first = scientist.running(1)
    waiting = scientist.task(1)
    raw.tasks.update_one({"_id": waiting}, {"$set": {"start_wanted": True, "after_tasks": [first]}})
    ids = copies(raw, waiting, 50)
    listen(raw)

    keeper.dependencies()

    questions = len(asked())
    raw.tasks.update_one({"_id": first}, {"$set": {"state": "complete", "outcome": "succeeded"}})
    keeper.dependencies()
    assert questions == 2
    assert states(raw, [waiting, *ids]) == {"running"}


def test_reactions_have_their_turn_and_a_large_table_is_made_in_a_step_of_its_own(
    scientist: Scientist,
    volunteer: Volunteers,
    raw: Any,
    keeper: Housekeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("source_server.services.reactions.react.PAGE", 1)
    jobs = {"success": REACTION}
    scientist.ok("POST", "/projects", {"name": "sums"})
    ids = []
    for name in ("a-large", "b-large", "c", "d"):
        body = {"jobs": {"main": REACTION, **jobs}, "id": name}
        task = scientist.ok("POST", "/projects/sums/tasks", body)["id"]
        ids.append(task)
    like = {"state": "complete", "outcome": "succeeded", "reacting": True, "sealed": True}
    data = {"id": "one", "attempt": "one", "complete": True, "ended": False, "touched": None}
    for task in ids:
        upload = {**data, "digest": None, "rows": 1, "chunks": 1_001 if "large" in task else 1}
        raw.tasks.update_one({"_id": task}, {"$set": {**like, "upload": upload}})

    def begun() -> set[str]:
        return {one["reacts_to"] for one in raw.tasks.find({"reacts_to": {"$type": "string"}})}

    for _ in range(5):
        keeper.reactions()
    small = begun()
    for _ in range(5):
        keeper.large_reactions()

    assert small == {"c", "d"}
    assert begun() == set(ids)


def test_tasks_with_limits_have_their_turn(
    scientist: Scientist, raw: Any, keeper: Housekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_server.services.tasks.watch_limits.TASKS", 2)
    task = scientist.running(1)
    over = {"cpu_hours": None, "until": raw.tasks.find_one({"_id": task})["created"], "stop_when": None}
    ids = copies(raw, task, 7, limits={**over, "then": "pause"})

    keeper.limits()
    after_one = raw.tasks.count_documents({"_id": {"$in": ids}, "paused": True})
    for _ in range(4):
        keeper.limits()

    assert after_one == 2
    assert raw.tasks.count_documents({"_id": {"$in": ids}, "paused": True}) == 7
