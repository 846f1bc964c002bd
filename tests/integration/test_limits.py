"""Limits of tasks over a real MongoDB: counted by the server's clock, decided once, told, and changed later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from source_server.domain.task import TaskState
from source_server.housekeeping import Housekeeper
from source_server.stores import tallies as tally_store

PATIENT = {"action": ["/bin/cat"], "timeout_s": 7200}


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def settle(keeper: Housekeeper) -> None:
    """What housekeeping does within seconds."""
    keeper.limits()
    keeper.tasks()
    keeper.limits()


def compute(raw: Any, who: Any, *, minutes: float, count: int = 1, **said: Any) -> None:
    """Take chunks and deliver them, as if each had been begun so long ago."""
    for _ in range(count):
        (chunk,) = who.claim()
        _begin_earlier(raw, chunk["id"], minutes)
        assert who.add(who.attempt(chunk, **said)).status_code == 200


def _begin_earlier(raw: Any, chunk: str, minutes: float) -> None:
    began = raw.chunks.find_one({"_id": chunk})["leases"][0]["since"] - timedelta(minutes=minutes)
    raw.chunks.update_one({"_id": chunk}, {"$set": {"leases.0.started": began}})


def report(scientist: Any, task: str) -> Any:
    return scientist.ok("GET", f"/tasks/{task}")


# --- processor hours


def test_a_task_that_has_used_its_hours_pauses_and_goes_on_with_more(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(10, **PATIENT, limits={"cpu_hours": 1})
    who = volunteer()

    compute(raw, who, minutes=29, count=2)
    settle(keeper)
    before = report(scientist, task)
    compute(raw, who, minutes=3)
    settle(keeper)
    paused = report(scientist, task)
    scientist.ok("POST", f"/tasks/{task}/resume")
    settle(keeper)
    again = report(scientist, task)
    scientist.ok("PATCH", f"/tasks/{task}", {"limits": {"cpu_hours": 2}})
    scientist.ok("POST", f"/tasks/{task}/resume")
    settle(keeper)
    resumed = report(scientist, task)

    assert not before["paused"] and 0.96 < before["used"]["cpu_hours"] < 1
    assert paused["paused"] and paused["paused_why"].endswith("of 1 processor hours.")
    assert again["paused"] and again["paused_why"] == paused["paused_why"]
    assert not resumed["paused"] and resumed["state"] == "running"
    assert who.claim()


def test_failed_attempts_and_asked_for_processors_count_and_the_clients_word_does_not(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(10, **PATIENT, cpus=2, limits={"cpu_hours": 10})
    who = volunteer(resources={"cpus": 4})

    (chunk,) = who.claim()
    _begin_earlier(raw, chunk["id"], 30)
    who.add(who.failure(chunk, cpu_s=1e9, ended="2030-01-01T00:00:00.000Z"))
    compute(raw, who, minutes=60, cpu_s=1e9)
    settle(keeper)

    assert 3.0 <= report(scientist, task)["used"]["cpu_hours"] < 3.2


def test_each_attempt_is_counted_once_whoever_counts_and_wherever_they_break_off(
    scientist: Any, volunteer: Any, raw: Any, stores: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tally_store, "BATCH", 7)
    task = scientist.running(60, **PATIENT, limits={"cpu_hours": 1000})
    who = volunteer()
    compute(raw, who, minutes=60, count=60)

    class Died(Exception):
        pass

    def dies(*_: Any) -> None:
        raise Died

    # A process dies after its batch is in the tally, before the batch's marks are gone.
    stores.tallies.count(task)
    monkeypatch.setattr(stores.tallies, "_unmark", dies)
    with pytest.raises(Died):
        stores.tallies.count(task)
    monkeypatch.undo()
    monkeypatch.setattr(tally_store, "BATCH", 7)

    def count() -> None:
        for _ in range(60):
            stores.tallies.count(task)

    together = [threading.Thread(target=count) for _ in range(4)]
    for one in together:
        one.start()
    for one in together:
        one.join()

    spent = sum(one["spent_s"] for one in raw.results.find({"task": task}))
    assert spent > 60 * 3600
    assert stores.tallies.read(task).cpu_s == pytest.approx(spent)


def test_who_counts_too_late_counts_nothing(
    scientist: Any, volunteer: Any, raw: Any, stores: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tally_store, "BATCH", 2)
    task = scientist.running(6, **PATIENT, limits={"cpu_hours": 1000})
    compute(raw, volunteer(), minutes=60, count=6)
    assert stores.tallies.count(task) == 2
    late = tally_store.Tallies(raw)
    read = late._uncounted

    def slowly(*asked: Any) -> Any:
        found = read(*asked)
        while stores.tallies.count(task):
            pass  # another process counts all of it meanwhile
        return found

    monkeypatch.setattr(late, "_uncounted", slowly)

    assert late.count(task) == 0
    spent = sum(one["spent_s"] for one in raw.results.find({"task": task}))
    assert stores.tallies.read(task).cpu_s == pytest.approx(spent)


def test_a_task_with_then_end_fails_and_its_open_chunks_are_cancelled(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(5, **PATIENT, limits={"cpu_hours": 0.5, "then": "end"})
    who = volunteer()
    (held,) = who.claim()

    compute(raw, who, minutes=31)
    settle(keeper)
    ended = report(scientist, task)
    late = who.add(who.attempt(held))

    assert (ended["state"], ended["outcome"]) == ("complete", "failed")
    assert ended["ended_why"].endswith("of 0.5 processor hours.")
    assert ended["chunks"] == {"total": 5, "done": 1, "cancelled": 4}
    assert late.status_code == 200 and not who.claim()


def test_a_task_without_limits_pays_nothing_for_them(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(1)
    who = volunteer()

    compute(raw, who, minutes=1)

    assert raw.results.find_one().keys().isdisjoint({"uncounted", "unmatched", "spent_s"})


def test_the_last_attempts_of_a_task_that_has_ended_are_counted_too(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(1, **PATIENT, limits={"cpu_hours": 100, "stop_when": {"answers": 5}})

    compute(raw, volunteer(), minutes=60)
    ended = report(scientist, task)
    settle(keeper)
    counted = report(scientist, task)

    assert ended["state"] == "complete" and ended["used"]["cpu_hours"] == 0
    assert counted["used"]["cpu_hours"] >= 1 and counted["used"]["answers"] == 1
    assert counted["ended_why"] is None and counted["outcome"] == "succeeded"


# --- a date


def test_a_task_pauses_at_its_date(scientist: Any, raw: Any, keeper: Housekeeper) -> None:
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    task = scientist.running(2, limits={"until": soon.isoformat()})
    settle(keeper)
    before = report(scientist, task)

    raw.tasks.update_one({"_id": task}, {"$set": {"limits.until": soon - timedelta(hours=2)}})
    settle(keeper)
    after = report(scientist, task)

    assert not before["paused"]
    assert after["paused"] and after["paused_why"].startswith("Its time was over at ")


# --- enough answers


def test_enough_matching_answers_end_a_task_as_succeeded(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    wanted = {"answers": 2, "match": {"field": "loss", "at_most": 0.1}}
    task = scientist.running(20, **PATIENT, limits={"stop_when": wanted})
    who = volunteer()

    for loss in (0.5, 0.05, 0.3, "0.01"):
        compute(
            raw, who, minutes=0, stdout=f'{{"loss": {loss}}}\n' if loss != "0.01" else '{"loss": "0.01"}\n'
        )
    settle(keeper)
    before = report(scientist, task)
    compute(raw, who, minutes=0, stdout='{"loss": 0.1}\n')
    settle(keeper)
    ended = report(scientist, task)

    assert before["state"] == "running" and before["used"]["answers"] == 1
    assert (ended["state"], ended["outcome"]) == ("complete", "succeeded")
    assert ended["chunks"] == {"total": 20, "done": 5, "cancelled": 15}
    assert ended["ended_why"] == ("It has 2 accepted answers with loss at most 0.1; 2 were wanted.")
    assert ended["limits"]["stop_when"] == wanted


def test_answers_that_are_only_candidates_do_not_count_and_disagreeing_ones_never_do(
    scientist: Any, volunteer: Any, new_key: Callable[[str], str], raw: Any, keeper: Housekeeper
) -> None:
    limits = {"stop_when": {"answers": 1, "match": {"equals": "yes"}}}
    task = scientist.running(1, **PATIENT, validation={"quorum": 2, "replicas": 2}, limits=limits)
    crew = [volunteer(account_key=new_key("volunteer")) for _ in range(3)]

    compute(raw, crew[0], minutes=0, stdout="yes\n")
    settle(keeper)
    with_one = report(scientist, task)
    compute(raw, crew[1], minutes=0, stdout="no\n")
    compute(raw, crew[2], minutes=0, stdout="no\n")
    settle(keeper)
    agreed = report(scientist, task)

    assert with_one["state"] == "running" and with_one["used"]["answers"] == 0
    assert agreed["outcome"] == "succeeded" and agreed["ended_why"] is None
    assert agreed["used"]["answers"] == 0


def test_a_rerun_takes_back_what_it_sends_out_again(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    limits = {"stop_when": {"answers": 2, "match": {"equals": "yes"}}}
    task = scientist.running(3, **PATIENT, limits=limits)
    who = volunteer()

    compute(raw, who, minutes=0, stdout="yes\n")
    settle(keeper)
    done = raw.chunks.find_one({"task": task, "state": "done"})["_id"]
    scientist.ok("POST", f"/tasks/{task}/rerun", {"chunks": [done]})
    for _ in range(3):
        keeper.rounds()
    # The same chunk says yes again: that is one yes, not two.
    raw.chunks.update_many({"task": task, "_id": {"$ne": done}}, {"$set": {"state": "leased"}})
    compute(raw, who, minutes=0, stdout="yes\n")
    keeper.limits()
    keeper.limits()
    still = report(scientist, task)
    raw.chunks.update_many({"task": task, "state": "leased"}, {"$set": {"state": "ready"}})
    compute(raw, who, minutes=0, stdout="yes\n")
    settle(keeper)
    ended = report(scientist, task)

    assert still["state"] == "running" and still["used"]["answers"] == 1
    assert ended["outcome"] == "succeeded" and ended["used"]["answers"] == 2


def test_what_was_computed_of_a_task_that_ended_early_is_computed_again_by_a_rerun(
    scientist: Any, volunteer: Any, raw: Any, keeper: Housekeeper
) -> None:
    task = scientist.running(3, **PATIENT, limits={"stop_when": {"answers": 1}})
    who = volunteer()
    compute(raw, who, minutes=0)
    settle(keeper)
    first = report(scientist, task)

    scientist.ok("PATCH", f"/tasks/{task}", {"limits": None})
    scientist.ok("POST", f"/tasks/{task}/rerun", {"which": "all"})
    for _ in range(3):
        keeper.rounds()
    again = report(scientist, task)
    compute(raw, who, minutes=0)
    settle(keeper)
    last = report(scientist, task)

    assert (first["outcome"], first["chunks"]["cancelled"]) == ("succeeded", 2)
    assert again["state"] == "running" and again["ended_why"] is None
    assert last["outcome"] == "succeeded" and last["chunks"] == {"total": 3, "done": 1, "cancelled": 2}


def test_nothing_is_handed_out_or_resumed_while_a_task_is_ending(
    scientist: Any, volunteer: Any, raw: Any, stores: Any
) -> None:
    task = scientist.running(3, **PATIENT, limits={"stop_when": {"answers": 1}})
    who = volunteer()
    found = stores.tasks.find(task)

    from source_server.domain.task import TaskOutcome

    assert stores.limited.end(found, TaskOutcome.SUCCEEDED, "Enough.")
    stores.clock.now()

    assert not volunteer().claim() and not who.claim()
    assert not stores.limited.end(found, TaskOutcome.FAILED, "Never mind.")
    assert scientist.call("PATCH", f"/tasks/{task}", {"limits": None}).status_code == 409
    assert stores.tasks.find(task).state is TaskState.RUNNING


def test_a_housekeeper_that_died_in_the_middle_of_an_end_is_followed_by_another(
    scientist: Any, raw: Any, stores: Any, keeper: Housekeeper
) -> None:
    from source_server.domain.task import TaskOutcome

    task = scientist.running(3, **PATIENT, limits={"stop_when": {"answers": 1}})
    stores.limited.end(stores.tasks.find(task), TaskOutcome.SUCCEEDED, "Enough.")
    raw.chunks.update_one({"task": task}, {"$set": {"state": "cancelled", "wanted": 0}})

    settle(keeper)

    ended = report(scientist, task)
    assert ended["outcome"] == "succeeded" and ended["chunks"]["cancelled"] == 3


def test_what_counts_is_said_before_the_task_starts(scientist: Any) -> None:
    plain = scientist.running(1)
    counting = scientist.running(1, limits={"cpu_hours": 1})
    waiting = scientist.task(1)

    refused = scientist.call("PATCH", f"/tasks/{plain}", {"limits": {"cpu_hours": 1}})
    other = {"stop_when": {"answers": 1, "match": {"equals": "x"}}}
    refused_too = scientist.call("PATCH", f"/tasks/{counting}", {"limits": other})

    assert refused.status_code == refused_too.status_code == 409
    assert "until" in refused.get_json()["error"]
    assert scientist.ok("PATCH", f"/tasks/{plain}", {"limits": {"until": "2030-01-01T00:00:00Z"}})
    assert (
        scientist.ok("PATCH", f"/tasks/{waiting}", {"limits": other})["limits"]["stop_when"]
        == other["stop_when"]
    )
