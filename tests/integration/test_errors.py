"""The error queue over a real MongoDB: what is kept, groups, another try, quarantine of chunks and hosts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from source_server.domain.signature import FULL_TAILS, OTHERS
from source_server.domain.trust import HOST_LEAST
from source_server.housekeeping import Housekeeper
from source_server.services.tasks import send_round
from source_server.services.tasks.send_round import IN_REQUEST
from source_server.stores.error_groups import OWN_PLACES, ErrorGroups


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def stranger(app: Any, scientist: Any, new_key: Callable[[str], str]) -> Any:
    return type(scientist)(app, new_key("scientist"))


def rest(raw: Any) -> None:
    """Let the pauses after failures be over."""
    for chunk in raw.chunks.find({"state": "delayed"}):
        before = chunk["not_before"] - timedelta(days=1)
        raw.chunks.update_one({"_id": chunk["_id"]}, {"$set": {"not_before": before}})


def fail_on(raw: Any, keeper: Housekeeper, *hosts: Any, **how: Any) -> None:
    """Each of these containers takes a chunk, one after the other, and fails at it."""
    for who in hosts:
        rest(raw)
        keeper.tasks()
        (chunk,) = who.claim()
        assert who.add(who.failure(chunk, **how)).status_code == 200


def set_aside(raw: Any, task: str, count: int | None = None, **change: Any) -> None:
    """Put chunks of the task where three failures would have put them."""
    failed = [
        {"error": f"e{n}", "host": f"h{n}", "account": "a", "signature": "boom", "bad_data": False}
        for n in range(3)
    ]
    query: dict[str, Any] = {"task": task} if count is None else {"task": task, "n": {"$lt": count}}
    whole = {"state": "quarantined", "wanted": 0, "failures": 3, "failed": failed, **change}
    raw.chunks.update_many(query, {"$set": whole})


def states(raw: Any, task: str) -> dict[str, int]:
    rows = raw.chunks.aggregate([{"$match": {"task": task}}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}])
    return {row["_id"]: row["n"] for row in rows}


# --- what is kept


def test_a_failure_is_kept_whole_with_the_time_that_the_server_measured(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    began = raw.chunks.find_one()["leases"][0]["since"] - timedelta(minutes=5)
    raw.chunks.update_one({}, {"$set": {"leases.0.since": began}})

    who.add(who.failure(chunk, outcome="oom", exit_code=None, signal=9, stderr_tail="no memory\n"))
    (error,) = scientist.ok("GET", f"/errors?task={task}")["errors"]

    assert error["outcome"] == "oom" and error["signal"] == 9 and error["exit_code"] is None
    assert error["host"] == who.host and error["container"] == who.id and error["chunk"] == chunk["id"]
    assert error["stderr_tail"] == "no memory\n" and error["signature"] == "oom, signal 9: no memory"
    assert 300 <= error["duration_s"] < 900
    assert error["started"] == "2026-11-22T06:00:00.000Z"
    assert scientist.ok("GET", f"/errors/{error['id']}") == error


def test_the_same_failure_sent_again_is_one_error_and_counts_once(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()

    for _ in range(3):
        assert who.add(who.failure(chunk)).status_code == 200

    (group,) = scientist.ok("GET", f"/errors/groups?task={task}")["groups"]
    assert group["count"] == 1 and raw.chunks.find_one()["failures"] == 1


def test_a_late_failure_is_kept_without_a_measured_time(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.ok("POST", "/release", {"chunks": [chunk["id"]]})

    who.add(who.failure(chunk))

    (error,) = scientist.ok("GET", f"/errors?task={task}")["errors"]
    assert error["duration_s"] is None and error["verdict"] == "stale"


def test_the_values_of_the_failed_chunk_are_masked_in_its_signature(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(body=b"city,n\nGraz,1\nWien,2\n")
    who = volunteer()

    for chunk, city in zip(sorted(who.claim(2), key=lambda one: one["n"]), ("Graz", "Wien"), strict=True):
        who.add(who.failure(chunk, stderr_tail=f"no such city: {city}\n"))

    (group,) = scientist.ok("GET", f"/errors/groups?task={task}")["groups"]
    assert group["signature"] == "failed, exit 1: no such city: VALUE" and group["chunks"] == 2


def test_only_the_first_errors_of_a_group_keep_their_whole_tails(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(FULL_TAILS + 2)
    who = volunteer()

    for _ in range(FULL_TAILS + 2):
        (chunk,) = who.claim()
        who.add(who.failure(chunk, stderr_tail="x" * 4000 + "\nboom\n"))

    sizes = [len(one["stderr_tail"]) for one in raw.errors.find(sort=[("stored", 1)])]
    assert sizes == [4006] * FULL_TAILS + [1024] * 2


def test_beyond_the_bound_all_further_signatures_share_one_group(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(2)
    raw.error_groups.insert_many(
        [{"_id": f"{task} {n}", "task": task, "signature": f"s{n}"} for n in range(OWN_PLACES - 1)]
    )
    who = volunteer()

    for chunk, said in zip(who.claim(2), ("the last with a place", "one too many"), strict=True):
        who.add(who.failure(chunk, stderr_tail=said))

    groups = scientist.ok("GET", f"/errors/groups?task={task}")["groups"]
    assert {one["signature"] for one in groups} == {OTHERS, "failed, exit 1: the last with a place"}
    (shared,) = [one for one in groups if one["signature"] == OTHERS]
    assert shared["sample"]["stderr_tail"] == "one too many"


def test_two_processes_never_admit_more_signatures_than_there_are_places(stores: Any, raw: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    raw.error_groups.insert_many(
        [{"_id": f"t {n}", "task": "t", "signature": f"s{n}"} for n in range(OWN_PLACES - 5)]
    )
    groups = [ErrorGroups(raw) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(one.admitted, "t", {f"new {n}", "same"}) for n, one in enumerate(groups)]
    admitted = [one.result() for one in asked]

    assert raw.error_groups.count_documents({"task": "t"}) == OWN_PLACES
    assert len(set().union(*admitted)) == 5


# --- groups and single ones


def test_groups_count_attempts_chunks_hosts_accounts_and_what_is_quarantined_now(
    app: Any, scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, new_key: Any
) -> None:
    task = scientist.running(2)
    hosts = [volunteer(), volunteer(), volunteer(account_key=new_key("volunteer"))]
    (kept,) = volunteer().claim()
    fail_on(raw, keeper, *hosts, stderr_tail="boom 1\n")
    other = volunteer()
    raw.chunks.update_one({"_id": kept["id"]}, {"$set": {"leases": [], "state": "ready", "wanted": 1}})
    fail_on(raw, keeper, other, stderr_tail="crash\n", exit_code=2)

    answer = scientist.ok("GET", f"/errors/groups?task={task}")

    assert answer["total"] == 2
    boom, crash = answer["groups"]
    assert {name: boom[name] for name in ("count", "chunks", "hosts", "accounts", "quarantined")} == {
        "count": 3,
        "chunks": 1,
        "hosts": 3,
        "accounts": 2,
        "quarantined": 1,
    }
    assert boom["signature"] == "failed, exit 1: boom N" and boom["sample"]["stderr_tail"] == "boom 1\n"
    assert boom["first"] <= boom["last"] and boom["sample"]["stored"] == boom["first"]
    assert crash["count"] == 1 and crash["quarantined"] == 0
    assert scientist.ok("GET", f"/errors/groups?task={task}&limit=1")["groups"] == [boom]


def test_errors_are_only_their_owners_to_see_and_to_requeue(
    scientist: Any, stranger: Any, admin: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk))
    (error,) = scientist.ok("GET", "/errors")["errors"]

    assert stranger.ok("GET", "/errors")["errors"] == []
    for path in (f"/errors?task={task}", f"/errors/groups?task={task}", f"/errors/{error['id']}"):
        assert stranger.call("GET", path).status_code == 404
        assert admin.call("GET", path).status_code == 200
        assert who.call("GET", path).status_code == 401
    for body in ({"task": task}, {"chunks": [chunk["id"]]}, {"task": task, "signature": error["signature"]}):
        assert stranger.call("POST", "/errors/requeue", body).status_code == 404
    assert stranger.call("POST", f"/tasks/{task}/rerun", {"which": "all"}).status_code == 404
    assert scientist.call("GET", "/errors/nothing").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"chunks": []},
        {"chunks": ["x"]},
        {"chunks": ["t.1"] * 1001},
        {"chunks": "t.1"},
        {"task": "t", "chunks": ["t.1"]},
        {"chunks": ["t.1"], "signature": "x"},
        {"signature": "x"},
        {"task": {"$gt": ""}},
        {"task": "t", "signature": ""},
        {"task": "t", "all": True},
    ],
)
def test_a_requeue_says_exactly_one_thing(scientist: Any, body: Any) -> None:
    answer = scientist.call("POST", "/errors/requeue", body)

    assert answer.status_code == 400 and answer.get_json()["error"].endswith(".")


def test_groups_need_a_task_and_a_sound_limit(scientist: Any) -> None:
    assert "task" in scientist.call("GET", "/errors/groups").get_json()["error"]
    for limit in ("0", "1001", "x", "-1", "1e3"):
        assert scientist.call("GET", f"/errors?limit={limit}").status_code == 400


# --- another round


def test_requeued_chunks_of_a_failed_task_run_again_and_it_succeeds(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(2)
    who = volunteer()
    good, bad = who.claim(2)
    who.add(who.attempt(good))
    raw.chunks.update_one({"_id": bad["id"]}, {"$set": {"leases": []}})
    raw.tasks.update_one({"_id": task}, {"$set": {"examined": True}})
    set_aside(raw, task, leases=[])
    raw.chunks.update_one({"_id": good["id"]}, {"$set": {"state": "done"}})
    keeper.tasks()
    failed = scientist.ok("GET", f"/tasks/{task}")

    answer = scientist.call("POST", "/errors/requeue", {"task": task})
    running = scientist.ok("GET", f"/tasks/{task}")
    (again,) = who.claim()
    who.add(who.attempt(again))

    assert (failed["state"], failed["outcome"]) == ("complete", "failed")
    assert answer.status_code == 200 and answer.get_json() == {"sent": 1, "done": True}
    assert (running["state"], running["outcome"], running["ended"], running["round"]) == (
        "running",
        None,
        None,
        None,
    )
    assert again["id"] == bad["id"] and again["run"] == 0
    ended = scientist.ok("GET", f"/tasks/{task}")
    assert ended["outcome"] == "succeeded" and ended["ended"] > failed["ended"]


def test_a_requeue_without_anything_to_requeue_leaves_a_complete_task_alone(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(1)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.attempt(chunk))
    before = raw.tasks.find_one({"_id": task})

    for body in ({"task": task}, {"chunks": [chunk["id"]]}):
        assert scientist.ok("POST", "/errors/requeue", body) == {"sent": 0, "done": True}

    assert before["state"] == "complete" and raw.tasks.find_one({"_id": task}) == before


def test_only_the_named_chunks_are_requeued(scientist: Any, raw: Any) -> None:
    task = scientist.running(5)
    set_aside(raw, task, 4)
    named = [f"{task}.0", f"{task}.2", f"{task}.0", f"{task}.4"]

    assert scientist.ok("POST", "/errors/requeue", {"chunks": named})["sent"] == 2

    assert states(raw, task) == {"quarantined": 2, "ready": 3}
    assert scientist.call("POST", "/errors/requeue", {"chunks": [f"{task}.99"]}).status_code == 404


def test_a_requeue_by_signature_takes_what_was_set_aside_for_it(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    task = scientist.running(6)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.failure(chunk))
    raw.errors.update_one({}, {"$set": {"signature": "boom"}})
    set_aside(raw, task)
    other = [{"error": "x", "host": "h", "account": "a", "signature": "crash", "bad_data": True}]
    raw.chunks.update_many({"n": {"$lt": 2}}, {"$set": {"failed": other}})

    sent = scientist.ok("POST", "/errors/requeue", {"task": task, "signature": "boom"})
    unknown = scientist.call("POST", "/errors/requeue", {"task": task, "signature": "never seen"})

    assert sent == {"sent": 4, "done": True} and unknown.status_code == 404
    assert states(raw, task) == {"ready": 4, "quarantined": 2}


def test_chunks_without_a_quorum_get_one_more_answer_when_they_are_requeued(
    app: Any, scientist: Any, new_key: Any, keeper: Housekeeper, raw: Any
) -> None:
    from people import Volunteer

    task = scientist.running(1, validation={"quorum": 2, "most": 3})
    crowd = [Volunteer(app, new_key("volunteer")) for _ in range(4)]
    for number, who in enumerate(crowd[:3]):
        (chunk,) = who.claim()
        who.add(who.attempt(chunk, f"{number}\n"))
    keeper.tasks()
    (group,) = scientist.ok("GET", f"/errors/groups?task={task}")["groups"]

    sent = scientist.ok("POST", "/errors/requeue", {"task": task, "signature": group["signature"]})
    (chunk,) = crowd[3].claim()
    crowd[3].add(crowd[3].attempt(chunk, "1\n"))

    assert group["signature"] == "disagreement: no quorum" and group["quarantined"] == 1
    assert group["hosts"] == 0 and len(group["sample"]["candidates"]) == 3
    assert sent["sent"] == 1
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "succeeded"


def test_a_large_requeue_is_carried_on_by_housekeeping_and_the_task_does_not_end_meanwhile(
    scientist: Any, keeper: Housekeeper, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = 100
    monkeypatch.setattr(send_round, "BATCH", batch)
    task = scientist.running(batch * IN_REQUEST + 70)
    set_aside(raw, task)
    keeper.tasks()
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "failed"

    answer = scientist.call("POST", "/errors/requeue", {"task": task})
    under_way = scientist.ok("GET", f"/tasks/{task}")
    raw.chunks.update_many({"task": task, "state": "ready"}, {"$set": {"state": "quarantined"}})
    keeper.tasks()
    still = scientist.ok("GET", f"/tasks/{task}")["state"]
    refused = scientist.call("POST", "/errors/requeue", {"task": task})
    keeper.rounds()

    assert answer.status_code == 202
    assert answer.get_json() == {"sent": batch * IN_REQUEST, "done": False}
    assert under_way["round"] == {"kind": "requeue", "which": "failed", "sent": batch * IN_REQUEST}
    assert still == "running" and refused.status_code == 409
    # What came back in between is not sent out a second time by the same round.
    assert states(raw, task) == {"quarantined": batch * IN_REQUEST, "ready": 70}
    assert raw.tasks.find_one()["round"] is None


def test_a_round_whose_process_died_is_taken_over_when_it_falls_silent(
    scientist: Any, stores: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(3)
    set_aside(raw, task)
    now = stores.clock.now()
    scientist.ok("POST", "/errors/requeue", {"chunks": [f"{task}.0"]})
    dead = {
        "number": 2,
        "which": "failed",
        "anew": False,
        "signature": None,
        "chunks": [],
        "after": "",
        "sent": 0,
        "hand": str(uuid.uuid4()),
        "touched": now,
    }
    raw.tasks.update_one({"_id": task}, {"$set": {"round": dead, "rounds": 2}})

    keeper.rounds()
    untouched = states(raw, task)
    raw.tasks.update_one({"_id": task}, {"$set": {"round.touched": now - timedelta(minutes=1)}})
    keeper.rounds()

    assert untouched == {"ready": 1, "quarantined": 2}
    assert states(raw, task) == {"ready": 3} and raw.tasks.find_one()["round"] is None


# --- when a chunk is set aside


def test_a_chunk_that_fails_on_the_only_host_is_set_aside_after_three_failures(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(1)
    who = volunteer()

    fail_on(raw, keeper, who, who)
    after_two = raw.chunks.find_one()["state"]
    fail_on(raw, keeper, who)

    assert after_two == "delayed" and raw.chunks.find_one()["state"] == "quarantined"


def test_two_hosts_of_one_account_must_both_have_failed(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(1)
    first, second = volunteer(), volunteer()
    rest(raw)

    fail_on(raw, keeper, first, second)
    after_two = raw.chunks.find_one()
    fail_on(raw, keeper, second)

    assert after_two["state"] == "delayed" and {one["host"] for one in after_two["failed"]} == {
        first.host,
        second.host,
    }
    assert raw.chunks.find_one()["state"] == "quarantined"


def test_with_many_hosts_three_must_have_failed_and_of_two_accounts_where_two_are_live(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, new_key: Any
) -> None:
    scientist.running(1)
    own = [volunteer() for _ in range(4)]
    another = volunteer(account_key=new_key("volunteer"))

    fail_on(raw, keeper, *own[:3])
    of_one_account = raw.chunks.find_one()["state"]
    fail_on(raw, keeper, another)

    assert of_one_account == "delayed" and raw.chunks.find_one()["state"] == "quarantined"


def test_bad_data_is_final_once_a_second_host_says_so(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    scientist.running(1)
    crowd = [volunteer() for _ in range(5)]

    fail_on(raw, keeper, crowd[0], exit_code=65)
    first = raw.chunks.find_one()["state"]
    fail_on(raw, keeper, crowd[1], exit_code=65)

    assert first == "delayed" and raw.chunks.find_one()["state"] == "quarantined"


def test_bad_data_is_final_at_once_when_there_is_nobody_else_to_ask(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(1)

    fail_on(raw, keeper, volunteer(), exit_code=65)
    keeper.tasks()

    assert raw.chunks.find_one()["state"] == "quarantined"
    assert scientist.ok("GET", f"/tasks/{task}")["outcome"] == "failed"


# --- a task that fails alike everywhere


def fail_many(who: Any, count: int, **how: Any) -> None:
    for _ in range(count):
        (chunk,) = who.claim()
        who.add(who.failure(chunk, **how))


def test_a_task_whose_first_attempts_fail_alike_pauses_itself_once_and_says_so(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(60)
    who = volunteer()
    (good,) = who.claim()
    who.add(who.attempt(good))
    fail_many(who, 18)
    keeper.tasks()
    too_early = scientist.ok("GET", f"/tasks/{task}")["paused"]
    fail_many(who, 1)

    keeper.tasks()
    paused = scientist.ok("GET", f"/tasks/{task}")
    idle = who.claim()
    resumed = scientist.ok("POST", f"/tasks/{task}/resume")
    fail_many(who, 20)
    keeper.tasks()

    assert not too_early and paused["paused"] and idle == []
    assert paused["paused_why"] == "19 of its first 20 attempts failed alike: failed, exit 1: boom N."
    assert resumed["paused_why"] is None and not resumed["paused"]
    assert not scientist.ok("GET", f"/tasks/{task}")["paused"]


def test_a_task_that_mostly_works_is_looked_at_no_more(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(30)
    who = volunteer()
    for _ in range(3):
        (chunk,) = who.claim()
        who.add(who.attempt(chunk))

    keeper.tasks()

    assert raw.tasks.find_one({"_id": task})["examined"] is True
    fail_many(who, 20)
    keeper.tasks()
    assert not scientist.ok("GET", f"/tasks/{task}")["paused"]


def test_one_broken_host_does_not_pause_a_task_that_another_could_compute(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(60)
    broken, sound = volunteer(), volunteer()
    fail_many(broken, 20)

    keeper.tasks()
    waiting = raw.tasks.find_one({"_id": task})
    (chunk,) = sound.claim()
    sound.add(sound.attempt(chunk))
    keeper.tasks()

    assert not waiting["paused"] and not waiting["examined"]
    settled = raw.tasks.find_one({"_id": task})
    assert not settled["paused"] and settled["examined"]


# --- hosts


def test_a_host_that_fails_where_others_succeed_is_quarantined_and_the_operator_clears_it(
    scientist: Any, volunteer: Any, admin: Any, keeper: Housekeeper, raw: Any, new_key: Any
) -> None:
    broken, sound = volunteer(newcomer=True), volunteer(account_key=new_key("volunteer"))
    for _ in range(3):
        scientist.running(1)
        fail_on(raw, keeper, broken)
        rest(raw)
        keeper.tasks()
        (chunk,) = sound.claim()
        sound.add(sound.attempt(chunk))

    (record,) = [one for one in admin.ok("GET", "/hosts")["hosts"] if one["host"] == broken.host]
    owner = type(admin)(admin._http.application, broken.account_key)
    own = owner.ok("GET", "/hosts")["hosts"]
    place = {"account": record["account"], "host": broken.host}
    cleared = [admin.ok("POST", "/hosts/clear", place) for _ in range(2)]

    assert record["quarantined"] and record["why"] == "3 chunks in a row failed here and succeeded elsewhere"
    assert record["limit"] == HOST_LEAST and record["blamed"] == 3
    assert own == [record]
    assert cleared == [{"cleared": True}, {"cleared": False}]
    (after,) = owner.ok("GET", "/hosts")["hosts"]
    assert after["quarantined"] is None and after["why"] is None and after["blamed"] == 0


def test_hosts_are_cleared_by_admins_only_and_must_be_known(
    scientist: Any, volunteer: Any, admin: Any
) -> None:
    who = volunteer()
    owner = type(admin)(admin._http.application, who.account_key)
    place = {"account": "volunteer-00000000", "host": who.host}

    assert owner.call("POST", "/hosts/clear", place).status_code == 403
    assert scientist.call("GET", "/hosts").status_code == 403
    assert admin.call("POST", "/hosts/clear", place).status_code == 404
    assert admin.call("POST", "/hosts/clear", {**place, "host": "attic"}).status_code == 400
    assert admin.call("POST", "/hosts/clear", {**place, "why": "x"}).status_code == 400


# --- the commands


@pytest.fixture
def command(
    app: Any, scientist: Any, mongo_uri: str, raw: Any, tmp_path: Any, monkeypatch: Any
) -> Iterator[Callable[..., Any]]:
    """Runs `dockercomp` or `dockercomp-server` against this app, served on loopback, and this database."""
    from click.testing import CliRunner
    from werkzeug.serving import make_server

    from dockercomp.cli import main as of_scientist
    from source_server.cli import main as of_operator

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    (tmp_path / "key").write_text(scientist.key)
    monkeypatch.setenv("DOCKERCOMP_SERVER", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DOCKERCOMP_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("DOCKERCOMP_MONGO_URI", mongo_uri)
    monkeypatch.setenv("DOCKERCOMP_DATABASE", raw.name)

    def run(program: str, *argv: str) -> Any:
        return CliRunner().invoke(of_scientist if program == "dockercomp" else of_operator, argv)

    yield run
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_scientists_commands_show_groups_and_send_chunks_out_again(
    command: Callable[..., Any], scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any
) -> None:
    task = scientist.running(1)
    fail_on(raw, keeper, volunteer(), exit_code=65, stderr_tail="first\nno such row: 17\n")
    keeper.tasks()

    groups = command("dockercomp", "errors", "--task", task, "--groups")
    requeued = command("dockercomp", "requeue", task, "--signature", "failed, exit 65: no such row: N")
    nothing = command("dockercomp", "requeue", "--chunk", f"{task}.0")
    rerun = command("dockercomp", "rerun", task, "--all")

    assert groups.output.startswith(
        "failed, exit 65: no such row: N\n    1 failure of 1 chunk on 1 host, 1 set"
    )
    assert f"    {task}.0 said:\n    first\n    no such row: 17\n" in groups.output
    assert requeued.output == "1 chunk sent out again.\n" and nothing.output == "0 chunks sent out again.\n"
    assert rerun.output == "1 chunk sent out again.\n" and raw.chunks.find_one()["run"] == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["requeue"],
        ["requeue", "t", "--chunk", "t.1"],
        ["requeue", "--chunk", "t.1", "--signature", "x"],
        ["rerun", "t"],
        ["rerun", "t", "--all", "--chunk", "t.1"],
        ["errors", "--groups"],
        ["requeue", "nothing"],
        ["rerun", "nothing", "--all"],
    ],
)
def test_a_command_that_cannot_be_carried_out_ends_with_a_sentence(
    command: Callable[..., Any], argv: list[str]
) -> None:
    done = command("dockercomp", *argv)

    assert done.exit_code == 2 and done.output.strip().endswith(".")


def test_status_shows_why_a_task_paused_itself(command: Callable[..., Any], scientist: Any, raw: Any) -> None:
    task = scientist.running(3)
    raw.tasks.update_one({"_id": task}, {"$set": {"paused": True, "paused_why": "All of it fails."}})

    assert "    paused: All of it fails.\n" in command("dockercomp", "status").output


def test_the_operators_commands_show_and_clear_a_quarantined_host(
    command: Callable[..., Any], stores: Any, volunteer: Any, raw: Any
) -> None:
    who = volunteer(newcomer=True)
    account = raw.accounts.find_one({"_id": raw.containers.find_one()["account"]})
    stores.hosts.halve(account["_id"], who.host, 1)
    (record,) = stores.hosts.all(None)
    stores.hosts.quarantine(record, stores.clock.now(), "it fails")

    listed = command("dockercomp-server", "host", "list", "--quarantined")
    cleared = command("dockercomp-server", "host", "clear", account["pseudonym"], who.host)
    again = command("dockercomp-server", "host", "clear", account["pseudonym"], who.host)
    unknown = command("dockercomp-server", "host", "clear", "nobody", who.host)

    assert listed.output == f"{account['pseudonym']}\t{who.host}\t1\t0\t0\tquarantined: it fails\n"
    assert cleared.output == f"{who.host} is cleared.\n" and "not quarantined" in again.output
    assert unknown.exit_code == 2 and "no record" in unknown.output
    assert command("dockercomp-server", "host", "list").output.endswith("in order\n")
