"""Claims, leases, beats, lives and purging over a real MongoDB, each rule of the protocol by itself."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from source_server.housekeeping import Housekeeper
from source_server.services.containers.give_back import GiveBack


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def chunk_of(raw: Any, chunk: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = raw.chunks.find_one({"_id": chunk["id"]})
    return document


def age_leases(raw: Any) -> None:
    long_ago = raw.chunks.find_one({"leases.0": {"$exists": True}})["leases"][0]["until"] - timedelta(days=1)
    raw.chunks.update_many({"leases.0": {"$exists": True}}, {"$set": {"leases.$[].until": long_ago}})


def silence(raw: Any, *volunteers: Any) -> None:
    for who in volunteers:
        seen = raw.containers.find_one({"_id": who.id})["last_seen"]
        raw.containers.update_one({"_id": who.id}, {"$set": {"last_seen": seen - timedelta(seconds=61)}})


def test_fifty_parallel_claims_on_twenty_chunks_get_twenty_distinct_ones(
    scientist: Any, volunteer: Any
) -> None:
    scientist.running(20)
    crowd = [volunteer() for _ in range(50)]
    got: list[list[dict[str, Any]]] = []
    gate = threading.Barrier(len(crowd))

    def one(who: Any) -> None:
        gate.wait()
        got.append(who.claim(1))

    threads = [threading.Thread(target=one, args=(who,)) for who in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    won = [chunk["id"] for chunks in got for chunk in chunks]
    assert len(won) == len(set(won))
    # Beaten ones are told "again at once": asked again, the crowd takes all of it and no more.
    won += [chunk["id"] for who in crowd for chunk in who.claim(1)]
    assert len(won) == len(set(won)) == 20


def test_the_same_token_again_gets_the_same_chunks(scientist: Any, volunteer: Any) -> None:
    scientist.running(10)
    who, token = volunteer(), str(uuid.uuid4())

    first = who.claim(3, token)
    again = who.claim(3, token)

    assert len(first) == 3
    assert [chunk["id"] for chunk in again] == [chunk["id"] for chunk in first]


def test_an_expired_lease_goes_to_another_and_the_late_result_is_still_taken(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(1)
    slow, quick = volunteer(), volunteer()
    (chunk,) = slow.claim()
    age_leases(raw)

    keeper.leases()
    (again,) = quick.claim()
    assert slow.add(slow.attempt(chunk, "late\n")).status_code == 200
    assert quick.add(quick.attempt(again, "late\n")).status_code == 200

    assert again["id"] == chunk["id"] and again["ticket"] != chunk["ticket"]
    assert chunk_of(raw, chunk)["state"] == "done"
    verdicts = {doc["container"]: doc["verdict"] for doc in raw.results.find()}
    assert verdicts == {slow.id: "accepted", quick.id: "duplicate"}
    assert "answer" not in raw.results.find_one({"container": quick.id})


def test_the_same_result_twice_is_one_document(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    answers = [who.add(who.attempt(chunk)) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert raw.results.count_documents({}) == 1


def test_a_third_different_answer_of_one_container_is_refused(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    statuses = [who.add(who.attempt(chunk, f"{n}\n")).status_code for n in range(3)]

    assert statuses == [200, 200, 409]
    assert raw.results.find_one({"verdict": "accepted"})["answer"] == "0\n"


@pytest.mark.parametrize("change", ["ticket", "token", "run", "chunk", "other container"])
def test_a_result_without_its_ticket_is_refused(
    scientist: Any, volunteer: Any, raw: Any, change: str
) -> None:
    scientist.running(2)
    who, other = volunteer(), volunteer()
    chunk, second = who.claim(2)
    forged = who.attempt(chunk)
    caller = other if change == "other container" else who
    wrong = {"ticket": second["ticket"], "token": str(uuid.uuid4()), "run": 1, "chunk": second["id"]}
    if change in wrong:
        forged[change] = wrong[change]

    answer = caller.add(forged)

    assert answer.status_code == 403 and "ticket" in answer.get_json()["error"]
    assert raw.results.count_documents({}) == 0


def test_one_bad_entry_never_refuses_its_neighbours(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(2)
    who = volunteer()
    good, other = who.claim(2)
    bad = [{"chunk": "x"}, 7, who.attempt(other, "\ud800"), who.attempt(other, "x" * 300_000), None]

    answer = who.add(bad[0], who.attempt(good), *bad[1:])

    assert answer.status_code == 200
    entries = answer.get_json()["results"]
    assert [entry.get("stored", False) for entry in entries] == [False, True, False, False, False, False]
    assert {entry["status"] for entry in entries if "status" in entry} == {400}
    assert raw.results.count_documents({}) == 1


def test_a_failed_attempt_is_kept_and_its_chunk_offered_again_after_a_pause(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    assert who.add(who.failure(chunk)).get_json()["results"] == [{"chunk": chunk["id"], "stored": True}]
    delayed = chunk_of(raw, chunk)
    raw.chunks.update_one(
        {"_id": chunk["id"]}, {"$set": {"not_before": delayed["not_before"] - timedelta(hours=1)}}
    )
    keeper.tasks()
    (again,) = volunteer().claim()

    assert delayed["state"] == "delayed" and delayed["failures"] == 1
    assert again["id"] == chunk["id"]
    (error,) = scientist.ok("GET", f"/errors?task={task}")["errors"]
    assert error["exit_code"] == 1 and error["signature"] == "failed, exit 1: boom N"
    assert error["verdict"] == "counted"


def test_failures_on_three_hosts_quarantine_a_chunk_and_a_late_good_result_still_counts(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(1)
    early = volunteer()
    (kept,) = early.claim()
    age_leases(raw)
    keeper.leases()
    for _ in range(3):
        who = volunteer()
        raw.chunks.update_many({"state": "delayed"}, {"$set": {"not_before": early_instant(raw)}})
        keeper.tasks()
        (chunk,) = who.claim()
        who.add(who.failure(chunk))

    quarantined = scientist.ok("GET", f"/tasks/{task}")
    early.add(early.attempt(kept))

    assert quarantined["chunks"] == {"total": 1, "quarantined": 1}
    assert (quarantined["state"], quarantined["outcome"]) == ("complete", "failed")
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"] == {"total": 1, "done": 1}


def early_instant(raw: Any) -> Any:
    return raw.tasks.find_one({})["created"] - timedelta(days=1)


def test_a_stale_error_is_kept_and_changes_nothing(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(1)
    slow, quick = volunteer(), volunteer()
    (chunk,) = slow.claim()
    age_leases(raw)
    keeper.leases()
    (again,) = quick.claim()

    assert slow.add(slow.failure(chunk)).status_code == 200

    assert raw.errors.find_one({})["verdict"] == "stale"
    after = chunk_of(raw, chunk)
    assert after["state"] == "leased" and after["failures"] == 0
    assert after["leases"][0]["token"] == again["token"]


def test_what_a_beat_no_longer_lists_is_given_back(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(4)
    who = volunteer()
    kept, dropped = str(uuid.uuid4()), str(uuid.uuid4())
    who.claim(2, kept)
    who.claim(2, dropped)
    assert who.beat().get_json()["claim_again"] == []

    answer = who.beat(held={kept: 2})

    assert answer.get_json() == {"drop": [], "lost": [], "claim_again": [], "config": {"beat_s": 20.0}}
    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"leased": 2, "ready": 2}


def test_a_wrong_count_makes_the_client_claim_that_token_again(scientist: Any, volunteer: Any) -> None:
    scientist.running(3)
    who, token = volunteer(), str(uuid.uuid4())
    chunks = who.claim(3, token)

    answer = who.beat(held={token: 0})

    assert answer.get_json()["claim_again"] == [token]
    assert [chunk["id"] for chunk in who.claim(0, token)] == [chunk["id"] for chunk in chunks]


def test_a_beat_that_says_started_restarts_the_deadline(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(3)
    who = volunteer()
    *_, third = who.claim(3)
    before = chunk_of(raw, third)["leases"][0]

    who.beat(started=[third["id"]])

    after = chunk_of(raw, third)["leases"][0]
    assert before["started"] is None and after["started"] is not None
    assert after["until"] < before["until"]  # it was third in line, now it is first


def test_a_running_chunk_is_dropped_once_done_elsewhere_and_lost_once_given_away(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(2)
    slow, quick = volunteer(), volunteer()
    first, second = slow.claim(2)
    age_leases(raw)
    keeper.leases()
    again = {chunk["id"]: chunk for chunk in quick.claim(2)}
    quick.add(quick.attempt(again[first["id"]]))

    answer = slow.beat(started=[first["id"], second["id"]]).get_json()

    assert (answer["drop"], answer["lost"]) == ([first["id"]], [second["id"]])


def test_a_late_beat_changes_nothing(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(2)
    who = volunteer()
    who.claim(2)
    who.beat()
    who.beats -= 1

    answer = who.beat(held={})

    assert answer.status_code == 200
    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"leased": 2}


def test_registering_again_ends_the_earlier_life_and_gives_back_what_it_held(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(3)
    who = volunteer()
    (chunk, *_) = who.claim(3)
    old_key, old_life = who.key, who.life

    who.register()

    assert who.life != old_life
    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"ready": 3}
    assert who.add(who.attempt(chunk)).status_code == 200
    who.key = old_key
    assert who.beat().status_code == 401


def test_three_missed_beats_purge_a_container_and_free_what_it_held(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    scientist.running(6)
    now = [0.0]
    keeper = Housekeeper(stores, beat_s=20.0, monotonic=lambda: now[0])
    silent, lively = volunteer(), volunteer()
    silent_chunks = silent.claim(2)
    lively.claim(2)
    for second in range(0, 70, 10):
        now[0] = float(second)
        stores.meta.mark_serving(stores.clock.now())
        if second == 60:
            silence(raw, silent)
        keeper.silence()

    assert silent.beat().status_code == 410
    assert lively.beat().status_code == 200
    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"leased": 2, "ready": 4}
    assert {one["state"] for one in scientist.ok("GET", "/containers")["containers"]} == {"live", "purged"}
    # It may come back with a new life, and deliver what it finished in the old one.
    assert silent.add(silent.attempt(silent_chunks[0])).status_code == 200
    silent.register()
    assert silent.beat().status_code == 200


def test_nobody_is_purged_for_the_servers_own_absence(volunteer: Any, stores: Any, raw: Any) -> None:
    now = [0.0]
    keeper = Housekeeper(stores, beat_s=20.0, monotonic=lambda: now[0])
    who = volunteer()
    silence(raw, who)

    for second in range(0, 200, 10):  # the housekeeper works, no server does
        now[0] = float(second)
        keeper.silence()
    for second in range(200, 250, 10):  # the server is back, but not for long enough yet
        now[0] = float(second)
        stores.meta.mark_serving(stores.clock.now())
        keeper.silence()

    assert who.beat().status_code == 200


def test_a_container_that_leaves_gives_everything_back(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(8)
    who, other = volunteer(), volunteer()
    scientist.ok("POST", "/assign/all")
    who.claim(2)

    assert who.call("DELETE", f"/containers/{other.id}").status_code == 403
    released = who.ok("DELETE", f"/containers/{who.id}")["released"]

    assert released == 4
    assert raw.chunks.count_documents({"assigned.container": who.id}) == 0
    assert who.beat().status_code == 401


def test_release_gives_back_single_leases(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(3)
    who = volunteer()
    first, *_ = who.claim(3)

    assert who.ok("POST", "/release", {"chunks": [first["id"], "nosuchtask.1"]}) == {"released": 1}

    assert chunk_of(raw, first)["state"] == "ready"


def test_a_container_id_of_another_account_cannot_be_taken(volunteer: Any, new_key: Any) -> None:
    who = volunteer()
    stranger = volunteer(account_key=new_key("volunteer"))
    stranger.id, stranger.key = who.id, stranger.account_key

    answer = stranger.call("POST", "/containers", {"protocol": 1, "id": who.id, "host": {"id": who.host}})

    assert answer.status_code == 403
    assert who.beat().status_code == 200


def test_two_containers_behind_one_address_are_two_records(volunteer: Any, scientist: Any) -> None:
    one = volunteer()
    volunteer(host=one.host)

    assert len(scientist.ok("GET", "/containers")["containers"]) == 2


def test_a_cancelled_task_hands_nothing_out_and_keeps_late_results_as_cancelled(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(5)
    who = volunteer()
    chunk, _ = who.claim(2)

    scientist.ok("POST", f"/tasks/{task}/cancel")
    assert who.claim() == []
    keeper.tasks()
    keeper.tasks()
    answer = who.beat(started=[chunk["id"]]).get_json()
    who.add(who.attempt(chunk))

    assert answer["drop"] == [chunk["id"]]
    report = scientist.ok("GET", f"/tasks/{task}")
    assert (report["state"], report["outcome"], report["chunks"]) == (
        "complete",
        "cancelled",
        {"total": 5, "cancelled": 5},
    )
    assert raw.results.find_one({})["verdict"] == "cancelled"


def test_housekeeping_settles_a_result_whose_server_died_after_storing_it(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from source_server.services.answers.accept import Accept

    task = scientist.running(2)
    who = volunteer()
    good, bad = who.claim(2)
    with monkeypatch.context() as patch:
        patch.setattr(Accept, "_settle", lambda *_: None)  # the process ends between two database operations
        assert who.add(who.attempt(good), who.failure(bad)).status_code == 200
    assert raw.results.find_one({})["verdict"] == "new"
    for kind in (raw.results, raw.errors):
        stored = kind.find_one({})["stored"]
        kind.update_many({}, {"$set": {"stored": stored - timedelta(minutes=1)}})

    keeper.verdicts()

    assert raw.results.find_one({})["verdict"] == "accepted"
    assert raw.errors.find_one({})["verdict"] == "counted"
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"] == {"total": 2, "done": 1, "delayed": 1}


def test_fifty_tasks_that_a_container_cannot_help_do_not_hide_the_fifty_first(
    scientist: Any, volunteer: Any
) -> None:
    for _ in range(50):
        scientist.running(1, image="sha256:" + "c" * 64)
    wanted = scientist.running(1)

    (chunk,) = volunteer().claim()

    assert chunk["id"] == f"{wanted}.0"


def test_one_container_cannot_pile_up_errors_for_one_lease(scientist: Any, volunteer: Any, raw: Any) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    statuses = [who.add(who.failure(chunk, stderr_tail=f"{n}")).status_code for n in range(20)]

    assert statuses == [200] * 2 + [409] * 18
    assert raw.errors.count_documents({}) == 2


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        "yesterday",
        10**30,
        None,
        "2026-11-22T06:00:00",
    ],
)
def test_odd_times_are_refused_or_taken_but_never_break_anything(
    scientist: Any, volunteer: Any, moment: Any
) -> None:
    scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    status = who.add(who.attempt(chunk, started=moment)).status_code

    assert status == (200 if moment == "2026-11-22T06:00:00" else 400)
    assert scientist.call("GET", "/results.csv").status_code == 200


def test_chunks_come_in_the_order_of_their_deadlines(scientist: Any, volunteer: Any) -> None:
    scientist.running(10, timeout_s=60.0)

    ends = [chunk["ends_in_s"] for chunk in volunteer().claim(10)]

    assert 0 < ends[0] <= 60 + 80
    assert [end - ends[0] for end in ends] == pytest.approx([60 * place for place in range(10)], abs=0.1)


def test_what_a_crash_within_a_beat_left_leased_is_given_back(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scientist.running(1, timeout_s=86400.0)
    who = volunteer()
    who.claim()
    who.beat()
    with monkeypatch.context() as patch:
        patch.setattr(
            GiveBack, "tokens", lambda *_: 0
        )  # the process ends between the beat and what follows from it
        who.beat(held={})
    who.beat(held={})

    keeper.unlisted()
    early = Counter(doc["state"] for doc in raw.chunks.find())
    since = raw.chunks.find_one({})["leases"][0]["since"]
    raw.chunks.update_many({}, {"$set": {"leases.$[].since": since - timedelta(minutes=2)}})
    keeper.unlisted()

    assert early == {"leased": 1}
    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"ready": 1}


def test_what_a_container_lists_is_not_taken_from_it(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(2)
    who = volunteer()
    who.claim(2)
    who.beat()
    since = raw.chunks.find_one({})["leases"][0]["since"]
    raw.chunks.update_many({}, {"$set": {"leases.$[].since": since - timedelta(minutes=9)}})

    keeper.unlisted()

    assert Counter(doc["state"] for doc in raw.chunks.find()) == {"leased": 2}
