"""Reruns over a real MongoDB: a new run of all, the failed, the suspect or the named chunks; limits of messages."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from source_server.housekeeping import Housekeeper
from source_server.services.tasks import send_round
from source_server.services.tasks.send_round import IN_REQUEST

BATCH = 100  #: chunks that are looked at in one go: a tenth of what it is elsewhere


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_round, "BATCH", BATCH)


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def compute(who: Any, answer: str = "42\n") -> int:
    """Claim and answer until nothing is ready; how many chunks."""
    count = 0
    while chunks := who.claim(10):
        who.add(*[who.attempt(one, answer) for one in chunks])
        count += len(chunks)
    return count


def claim_soon(who: Any) -> dict[str, Any]:
    """The next chunk; for two seconds a server may believe that a task has none ready."""
    deadline = time.monotonic() + 60
    while not (chunks := who.claim()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return dict(chunks[0])


def table(scientist: Any, task: str) -> list[dict[str, str]]:
    text = scientist.call("GET", f"/results.csv?task={task}").get_data(as_text=True)
    return list(csv.DictReader(io.StringIO(text)))


def test_a_rerun_of_all_computes_every_chunk_anew_and_keeps_what_was_answered(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(5)
    who = volunteer()
    compute(who, "old\n")
    before = scientist.ok("GET", f"/tasks/{task}")

    answer = scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})
    between = table(scientist, task)
    again = compute(who, "new\n")

    assert before["outcome"] == "succeeded"
    assert answer.status_code == 200 and answer.get_json() == {"sent": 5, "done": True}
    assert {(row["answer"], row["state"], row["run"]) for row in between} == {("", "ready", "")}
    assert again == 5 and scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"
    assert {(row["answer"], row["run"], row["attempt"]) for row in table(scientist, task)} == {
        ("new", "1", "1")
    }
    assert raw.results.count_documents({"run": 0}) == raw.results.count_documents({"run": 1}) == 5


def test_the_same_container_may_answer_in_run_after_run(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(1)
    who = volunteer()
    compute(who)

    for run in range(1, 5):
        scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})
        assert compute(who, f"{run}\n") == 1

    (row,) = table(scientist, task)
    assert (row["answer"], row["run"], row["verdict"]) == ("4", "4", "accepted")


def test_an_answer_of_an_earlier_run_that_still_comes_is_kept_as_a_duplicate(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    late, quick = volunteer(), volunteer()
    (old,) = late.claim()
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})

    assert late.add(late.attempt(old, "old\n")).status_code == 200
    still_open = raw.chunks.find_one()
    compute(quick, "new\n")

    assert still_open["result"] is None and still_open["candidates"] == []
    assert {one["answer"]: one["verdict"] for one in raw.results.find()} == {
        "old\n": "duplicate",
        "new\n": "accepted",
    }
    assert table(scientist, task)[0]["answer"] == "new"


def test_a_failure_of_an_earlier_run_that_still_comes_changes_nothing(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (old,) = who.claim()
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})
    before = raw.chunks.find_one()

    assert who.add(who.failure(old)).status_code == 200

    assert raw.chunks.find_one() == before
    assert [error["verdict"] for error in scientist.ok("GET", "/errors")["errors"]] == ["stale"]


def test_a_rerun_of_the_failed_takes_only_what_is_quarantined(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(4)
    compute(volunteer())
    raw.chunks.update_many({"n": {"$lt": 2}}, {"$set": {"state": "quarantined", "result": None}})

    sent = scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "failed"})

    assert sent == {"sent": 2, "done": True}
    assert sorted((one["n"], one["state"], one["run"]) for one in raw.chunks.find()) == [
        (0, "ready", 1),
        (1, "ready", 1),
        (2, "done", 0),
        (3, "done", 0),
    ]


def test_a_rerun_of_the_suspect_takes_what_a_host_answered_that_lost_our_trust(
    scientist: Any, volunteer: Any, stores: Any, keeper: Housekeeper, raw: Any, new_key: Any
) -> None:
    task = scientist.running(6)
    liar, honest = volunteer(), volunteer(account_key=new_key("volunteer"))
    for who, answer in ((liar, "lie\n"), (honest, "truth\n")):
        for chunk in who.claim(2):
            who.add(who.attempt(chunk, answer))
    compute(honest, "truth\n")
    account = raw.containers.find_one({"_id": liar.id})["account"]
    stores.hosts.disagreed(account, liar.host)
    keeper.verdicts()
    shown = {row["verdict"] for row in table(scientist, task) if row["answer"] == "lie"}

    sent = scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "suspect"})
    compute(honest, "truth\n")
    ended = scientist.ok("GET", f"/tasks/{task}")["ended"]

    assert shown == {"suspect"} and sent == {"sent": 2, "done": True}
    assert [row["answer"] for row in table(scientist, task)] == ["truth"] * 6
    assert scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "suspect"})["sent"] == 0
    assert ended is not None and scientist.ok("GET", f"/tasks/{task}")["ended"] == ended


def test_named_chunks_are_rerun_and_others_of_the_task_are_not(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task, other = scientist.running(3), scientist.task(1)
    compute(volunteer())

    sent = scientist.ok("POST", f"/tasks/{task}/rerun", {"chunks": [f"{task}.1", f"{task}.1"]})
    foreign = scientist.call("POST", f"/tasks/{task}/rerun", {"chunks": [f"{other}.0"]})

    assert sent["sent"] == 1 and foreign.status_code == 404
    assert [one["run"] for one in raw.chunks.find({"task": task}, sort=[("n", 1)])] == [0, 1, 0]


@pytest.mark.parametrize("state", ["waiting", "cancelled"])
def test_a_task_that_waits_or_was_cancelled_is_not_rerun(
    scientist: Any, keeper: Housekeeper, raw: Any, state: str
) -> None:
    task = scientist.task(2)
    if state == "cancelled":
        scientist.ok("POST", f"/tasks/{task}/start")
        scientist.ok("POST", f"/tasks/{task}/cancel")

    during = scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})
    keeper.tasks()
    keeper.tasks()
    after = scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})

    assert during.status_code == after.status_code == 409
    assert {one["run"] for one in raw.chunks.find()} == {0}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"which": "some"},
        {"which": "all", "chunks": ["t.1"]},
        {"chunks": []},
        {"chunks": ["t.1"] * 1001},
        {"which": "chunks"},
        {"which": "all", "now": True},
    ],
)
def test_a_rerun_says_exactly_one_thing(scientist: Any, body: Any) -> None:
    task = scientist.running(1)

    assert scientist.call("POST", f"/tasks/{task}/rerun", body).status_code == 400


def test_a_large_rerun_goes_on_in_housekeeping_and_sends_no_chunk_out_twice(
    scientist: Any, volunteer: Any, stores: Any, keeper: Housekeeper, raw: Any
) -> None:
    count = BATCH * IN_REQUEST + 150
    task = scientist.running(count)
    raw.chunks.update_many({}, {"$set": {"state": "done"}})

    answer = scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})
    keeper.tasks()
    compute_one = compute_some(volunteer(), 3)
    # The process that carries it out dies: another goes through its last batches again.
    now = stores.clock.now()
    lost = {"round.after": str(BATCH), "round.hand": "dead", "round.touched": now - timedelta(minutes=1)}
    raw.tasks.update_one({"_id": task}, {"$set": lost})
    keeper.rounds()

    assert answer.status_code == 202 and answer.get_json() == {"sent": BATCH * IN_REQUEST, "done": False}
    assert compute_one == 3
    assert {one: raw.chunks.count_documents({"run": one}) for one in (0, 1, 2)} == {0: 0, 1: count, 2: 0}
    assert raw.chunks.count_documents({"state": "done"}) == 3
    found = scientist.ok("GET", f"/tasks/{task}")
    assert found["state"] == "running" and found["round"] is None


def compute_some(who: Any, count: int) -> int:
    chunks = who.claim(count)
    who.add(*[who.attempt(one) for one in chunks])
    return len(chunks) + (compute_some(who, count - len(chunks)) if 0 < len(chunks) < count else 0)


def test_two_housekeepers_on_one_rerun_send_every_chunk_out_once(
    scientist: Any, stores: Any, raw: Any
) -> None:
    count = BATCH * IN_REQUEST + 300
    task = scientist.running(count)
    raw.chunks.update_many({}, {"$set": {"state": "done"}})
    scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})
    keepers = [Housekeeper(stores, beat_s=20.0) for _ in range(3)]

    threads = [threading.Thread(target=one.rounds) for one in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert raw.chunks.count_documents({"run": 1, "state": "ready"}) == count


def test_a_round_that_begins_while_a_task_is_being_completed_wins(
    scientist: Any, stores: Any, raw: Any
) -> None:
    from source_server.domain.task import TaskOutcome

    task = scientist.running(2)
    raw.chunks.update_many({}, {"$set": {"state": "done"}})
    seen = stores.tasks.find(task)  # a process that has found no open chunk
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})

    completed = stores.tasks.complete(seen, TaskOutcome.SUCCEEDED, stores.clock.now())

    assert not completed and scientist.ok("GET", f"/tasks/{task}")["state"] == "running"


def test_cancelling_ends_a_round_and_sweeps_what_it_sent_out(
    scientist: Any, keeper: Housekeeper, raw: Any
) -> None:
    count = BATCH * IN_REQUEST + 10
    task = scientist.running(count)
    raw.chunks.update_many({}, {"$set": {"state": "done"}})
    scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})

    scientist.ok("POST", f"/tasks/{task}/cancel")
    keeper.tasks()
    before = raw.tasks.find_one({"_id": task})["state"]
    keeper.rounds()
    for _ in range(BATCH * IN_REQUEST // 1000 + 2):
        keeper.tasks()

    assert before == "running"
    found = scientist.ok("GET", f"/tasks/{task}")
    assert (found["outcome"], found["round"]) == ("cancelled", None)
    assert found["chunks"] == {"total": count, "cancelled": BATCH * IN_REQUEST, "done": 10}


def test_a_cancelled_task_is_not_completed_while_its_round_is_under_way_whatever_was_seen(
    scientist: Any, stores: Any, raw: Any
) -> None:
    from source_server.services.tasks.complete import Complete
    from source_server.services.tasks.send_round import SendRound

    task = scientist.running(BATCH * IN_REQUEST + 10)
    raw.chunks.update_many({}, {"$set": {"state": "done"}})
    scientist.call("POST", f"/tasks/{task}/rerun", {"which": "all"})
    scientist.ok("POST", f"/tasks/{task}/cancel")
    raw.chunks.update_many({}, {"$set": {"state": "done"}})
    seen = replace(stores.tasks.find(task), round=None)

    # Nothing is open just now; but the round might still send a chunk out.
    Complete(stores).sweep_cancelled(seen)
    before = stores.tasks.find(task).outcome
    SendRound(stores).go_on(task)
    Complete(stores).sweep_cancelled(seen)

    assert before is None and stores.tasks.find(task).outcome is not None


def test_a_rerun_with_a_validator_has_its_answers_compared_again(
    app: Any, scientist: Any, new_key: Any, stores: Any, keeper: Housekeeper, raw: Any
) -> None:
    from people import Volunteer

    comparator = {"kind": "validator", "validator": {"action": ["/bin/compare"]}}
    task = scientist.running(1, validation={"quorum": 2, "comparator": comparator})
    crowd = [Volunteer(app, new_key("volunteer")) for _ in range(2)]
    judge = Volunteer(app, new_key("volunteer"))
    stores.containers.set_trusted(judge.id, True)

    def round_of_answers() -> None:
        for who in crowd:
            chunk = claim_soon(who)
            assert chunk["id"] == f"{task}.0"
            who.add(who.attempt(chunk, f"{who.id}\n"))
        question = claim_soon(judge)
        assert question["id"] == f"{task}-v.0"
        judge.add(judge.attempt(question, "[1, 1]\n"))
        keeper.tasks()

    round_of_answers()
    ended = {one["_id"]: one["state"] for one in raw.tasks.find()}
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})
    runs = {one["_id"]: one["state"] for one in raw.tasks.find()}
    round_of_answers()
    keeper.tasks()

    assert ended == {task: "complete", f"{task}-v": "complete"}
    assert runs == {task: "running", f"{task}-v": "running"}
    assert {one["_id"]: one["state"] for one in raw.tasks.find()} == ended
    assert [row["run"] for row in table(scientist, task)] == ["1"]
    refused = scientist.call("POST", f"/tasks/{task}-v/rerun", {"which": "all"})
    assert refused.status_code == 409 and task in refused.get_json()["error"]


# --- limits of messages


def test_an_action_and_its_environment_have_their_limit_together(scientist: Any, raw: Any) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    path = "/projects/sums/tasks"
    fits = {"action": ["x" * 8_192] * 15, "env": {"A": "y" * 8_191}}
    over = {"action": ["x" * 8_192] * 15, "env": {"A": "y" * 8_192}}
    wide = {"action": ["ö" * 8_192] * 9}

    assert scientist.call("POST", path, fits).status_code == 201
    for body in (over, wide):
        answer = scientist.call("POST", path, body)
        assert answer.status_code == 400 and "more than 131072" in answer.get_json()["error"]
    assert raw.tasks.count_documents({}) == 1


def test_a_body_over_the_limit_is_413_also_when_its_length_is_not_told(app: Any, volunteer: Any) -> None:
    from werkzeug.test import create_environ, run_wsgi_app

    class Endless(io.RawIOBase):
        """A chunked body as the web server hands it on; it is never read far beyond the limit."""

        read_so_far = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.read_so_far += len(buffer)
            assert self.read_so_far < 64 * 1024 * 1024
            buffer[:] = b" " * len(buffer)
            return len(buffer)

    told = {"Authorization": f"Bearer {volunteer().key}", "Content-Type": "application/json"}
    environ = create_environ("/add", method="POST", headers={**told, "Transfer-Encoding": "chunked"})
    environ |= {"wsgi.input": io.BufferedReader(Endless()), "wsgi.input_terminated": True}
    environ.pop("CONTENT_LENGTH", None)

    body, status, _ = run_wsgi_app(app, environ)

    assert status.startswith("413") and json.loads(b"".join(body))["error"].endswith(".")
