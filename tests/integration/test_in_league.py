"""What one account, or one broken chunk, must not be able to do to the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from people import Scientist, Volunteer

from source_server.housekeeping import Housekeeper

Volunteers = Callable[..., Volunteer]
OLD = datetime.now(timezone.utc) - timedelta(minutes=5)


def record(raw: Any, who: Volunteer) -> dict[str, Any]:
    account = raw.containers.find_one({"_id": who.id})["account"]
    return raw.hosts.find_one({"_id": f"{account} {who.host}"}) or {}


def test_a_result_sent_again_and_again_lets_a_host_hold_no_more(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    scientist.running(1)
    who = volunteer(newcomer=True)
    [chunk] = who.claim()
    attempt = who.attempt(chunk)
    who.add(attempt)
    once = record(raw, who)["limit"]

    who.add(*[attempt] * 100)

    assert record(raw, who)["limit"] == once


def test_nobody_becomes_trusted_by_agreeing_with_himself(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    task = scientist.running(1, validation={"quorum": 2, "distinct": "host"})
    one, other = volunteer(), volunteer()
    for who in (one, other):
        [chunk] = who.claim()
        who.add(who.attempt(chunk))

    assert raw.chunks.find_one({"task": task})["state"] == "done"
    assert record(raw, one).get("agreed", 0) == record(raw, other).get("agreed", 0) == 0


def test_a_paused_container_keeps_no_chunk_from_the_others(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    scientist.running(1)
    one, other = volunteer(), volunteer()
    other.call(
        "POST", "/heartbeat", {"life": other.life, "beat": 1, "held": {}, "started": [], "paused": True}
    )
    account = raw.containers.find_one({"_id": one.id})["account"]
    failed = {"error": "e", "host": one.host, "account": account, "signature": "s", "bad_data": False}
    raw.chunks.update_one({}, {"$set": {"failed": [failed], "failures": 1}})

    assert len(one.claim()) == 1


def test_a_host_that_comes_back_after_a_purge_with_a_result_may_go_on(
    scientist: Scientist, volunteer: Volunteers, raw: Any
) -> None:
    scientist.running(2)
    who = volunteer()
    [chunk] = who.claim()
    raw.containers.update_one({"_id": who.id}, {"$set": {"state": "purged"}})

    who.add(who.attempt(chunk))

    assert record(raw, who)["limit"] >= 1
    who.register()
    assert len(who.claim()) == 1


def test_a_chunk_that_cannot_be_settled_holds_no_other_up(
    scientist: Scientist, volunteer: Volunteers, stores: Any, raw: Any
) -> None:
    broken, sound = scientist.running(1), scientist.running(1)
    who = volunteer()
    for _ in range(2):
        [chunk] = who.claim()
        who.add(who.attempt(chunk))
    raw.results.update_many({}, {"$set": {"verdict": "new", "stored": OLD}})
    raw.chunks.update_many({}, {"$set": {"state": "ready", "result": None, "candidates": [], "wanted": 1}})
    raw.tasks.delete_one({"_id": broken})

    Housekeeper(stores, beat_s=20.0).verdicts()

    assert raw.results.find_one({"task": sound})["verdict"] == "accepted"
    assert raw.results.find_one({"task": broken})["verdict"] == "new"


def test_a_late_answer_that_equals_the_accepted_one_is_never_blamed_though_the_validator_did_not_see_it(
    scientist: Scientist, app: Any, new_key: Callable[[str], str], stores: Any, raw: Any
) -> None:
    rule = {"quorum": 2, "comparator": {"kind": "validator", "validator": {"action": ["/opt/same.py"]}}}
    task = scientist.running(1, validation=rule)
    slow, first, second, trusted = (Volunteer(app, new_key("volunteer")) for _ in range(4))
    stores.containers.set_trusted(trusted.id, True)
    [late] = slow.claim()
    raw.chunks.update_one({"_id": f"{task}.0"}, {"$set": {"leases": [], "wanted": 2, "state": "ready"}})
    for who in (first, second):
        [chunk] = who.claim()
        who.add(who.attempt(chunk, "42\n"))
    [question] = trusted.claim()
    trusted.add(trusted.attempt(question, "[0, 0]\n"))

    slow.add(slow.attempt(late, "42\n"))

    assert raw.results.find_one({"container": slow.id})["verdict"] == "agreed"
    assert record(raw, slow).get("disagreed", 0) == 0
