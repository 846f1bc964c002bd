"""Open-ended tasks: rows are added while they run."""

from __future__ import annotations

import threading
from typing import Any

from source_server.domain.appending import Appending
from source_server.housekeeping import Housekeeper


def _open(scientist: Any, **more: Any) -> str:
    scientist.ok("POST", "/projects", {"name": "sums"})
    wish = {"action": ["/bin/cat"], "open_ended": True, **more}
    task = scientist.ok("POST", "/projects/sums/tasks", wish)["id"]
    scientist.ok("POST", f"/tasks/{task}/start")
    return str(task)


def test_rows_added_to_a_running_task_are_computed_and_exported(scientist: Any, volunteer: Any) -> None:
    task = _open(scientist)

    first = scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 1}, {"a": "x"}]})
    second = scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"b": None}]})
    someone = volunteer()
    got = someone.claim(5)
    someone.add(*[someone.attempt(one) for one in got])

    assert (first["first"], first["chunks"], second["first"]) == (0, 2, 2)
    assert sorted(one["input"] for one in got) == ['{"a": "x"}', '{"a": 1}', '{"b": null}']
    assert scientist.ok("GET", f"/tasks/{task}")["state"] == "running"
    table = scientist.call("GET", f"/results.csv?task={task}").text.splitlines()
    assert table[0].startswith("task,n,row,a,b,answer")
    assert [line.split(",")[1] for line in table[1:]] == ["0", "1", "2"]


def test_a_closed_task_ends_with_its_last_chunk_and_takes_no_more(scientist: Any, volunteer: Any) -> None:
    task = _open(scientist)
    scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 1}]})
    someone = volunteer()
    [chunk] = someone.claim()

    scientist.ok("POST", f"/tasks/{task}/close")
    scientist.ok("POST", f"/tasks/{task}/close")
    refused = scientist.call("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 2}]})
    someone.add(someone.attempt(chunk))

    assert refused.status_code == 409
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_the_same_key_again_adds_nothing(scientist: Any) -> None:
    task = _open(scientist)
    body = {"rows": [{"a": 1}, {"a": 2}], "key": "monday"}

    once = scientist.ok("POST", f"/tasks/{task}/chunks", body)
    scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 3}]})
    again = scientist.ok("POST", f"/tasks/{task}/chunks", body)

    assert once == again
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"]["total"] == 3


def test_many_at_once_lose_nothing_and_leave_no_gap(scientist: Any, raw: Any) -> None:
    task = _open(scientist)
    firsts: list[int] = []

    def add(who: int) -> None:
        for n in range(5):
            said = scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"who": who, "n": n}] * 2})
            firsts.append(said["first"])

    crowd = [threading.Thread(target=add, args=(who,)) for who in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()

    assert sorted(firsts) == list(range(0, 40, 2))
    assert sorted(one["n"] for one in raw.chunks.find({"task": task})) == list(range(40))


def test_what_a_process_that_died_was_about_to_add_is_added_by_housekeeping(
    scientist: Any, volunteer: Any, stores: Any
) -> None:
    task = _open(scientist)
    planned = Appending(key="k", n=0, texts=('{"a": 1}', '{"a": 2}'), fields=("a",))
    assert stores.appends.begin(task, planned)

    Housekeeper(stores, beat_s=20).tasks()

    assert len(volunteer().claim(5)) == 2
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"]["total"] == 2
    assert scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 9}], "key": "k"})["chunks"] == 2


def test_a_cancelled_task_sweeps_what_was_being_added(scientist: Any, volunteer: Any, stores: Any) -> None:
    task = _open(scientist)
    assert stores.appends.begin(task, Appending(key="k", n=0, texts=("{}",), fields=()))
    scientist.ok("POST", f"/tasks/{task}/cancel")
    keeper = Housekeeper(stores, beat_s=20)

    for _ in range(3):
        keeper.tasks()

    report = scientist.ok("GET", f"/tasks/{task}")
    assert (report["outcome"], report["chunks"]["cancelled"]) == ("cancelled", 1)
    assert scientist.call("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 9}]}).status_code == 409


def test_rows_that_cannot_be_chunks_are_refused_whole(scientist: Any) -> None:
    task = _open(scientist, action=["echo", "{a}"])
    path = f"/tasks/{task}/chunks"

    assert scientist.call("POST", path, {"rows": [{"a": 1}, {"b": 2}]}).status_code == 400
    assert scientist.call("POST", path, {"rows": []}).status_code == 400
    assert scientist.call("POST", path, {"rows": [{"a": "x" * 600_000}]}).status_code in (400, 413)
    assert scientist.call("POST", path, {"rows": [{"a": 1}] * 1001}).status_code == 400
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"]["total"] == 0


def test_numbers_that_others_have_taken_meanwhile_are_not_taken_again(scientist: Any, stores: Any) -> None:
    task = _open(scientist)
    stale = Appending(key="k", n=0, texts=("{}",), fields=())
    scientist.ok("POST", f"/tasks/{task}/chunks", {"rows": [{"a": 1}]})

    assert not stores.appends.begin(task, stale)


def test_a_key_is_known_however_many_came_after_it(scientist: Any) -> None:
    task = _open(scientist)
    path = f"/tasks/{task}/chunks"
    first = scientist.ok("POST", path, {"rows": [{"a": 0}], "key": "first"})

    for n in range(120):
        scientist.ok("POST", path, {"rows": [{"a": n}], "key": f"k{n}"})

    assert scientist.ok("POST", path, {"rows": [{"a": 0}], "key": "first"}) == first
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"]["total"] == 121
