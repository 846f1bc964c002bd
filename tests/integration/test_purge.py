"""Purging: all that a silent container had is ready again in one bounded pass, and nobody is purged wrongly."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from bench import laying
from source_server.domain.container import Container
from source_server.housekeeping import Housekeeper
from source_server.services.containers import give_back
from source_server.services.containers.give_back import GiveBack
from source_server.services.containers.purge import Purge
from source_server.stores.gate import Gate

BEAT_S = 20.0


def silence(raw: Any, *ids: str) -> None:
    """As if these containers had been seen last an hour ago."""
    now = raw.client.admin.command("hello")["localTime"]
    raw.containers.update_many({"_id": {"$in": ids}}, {"$set": {"last_seen": now - timedelta(hours=1)}})


def purge(stores: Any) -> list[str]:
    return Purge(stores, GiveBack(stores), beat_s=BEAT_S).silent()


def states(raw: Any) -> Counter[Any]:
    """(state, whom it is dealt to, number of leases) of all chunks."""
    shown = {"state": 1, "assigned": 1, "leases": 1, "wanted": 1}
    return Counter(
        (doc["state"], doc["assigned"] and doc["assigned"]["container"], len(doc["leases"]), doc["wanted"])
        for doc in raw.chunks.find({}, shown)
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the database was asked, and how many documents the largest answer had."""
    seen: Counter[str] = Counter()
    really_find = Gate.find

    def find(self: Gate, *args: Any, **named: Any) -> list[Any]:
        found = really_find(self, *args, **named)
        seen["finds"] += 1
        seen["largest"] = max(seen["largest"], len(found))
        return found

    monkeypatch.setattr(Gate, "find", find)
    return seen


def test_100_000_chunks_of_a_purged_container_are_ready_again_in_one_bounded_pass(
    stores: Any, raw: Any, calls: Counter[str]
) -> None:
    silent, alive = laying.crowd(stores, 2)
    task = laying.running_task(stores)
    laying.add(stores, laying.dealt(laying.ready_chunks(task, 0, 50_000), [silent]))
    laying.add(stores, laying.leased(laying.ready_chunks(task, 50_000, 50_000), [silent]))
    laying.add(stores, laying.dealt(laying.ready_chunks(task, 100_000, 10), [alive]))
    laying.add(stores, laying.leased(laying.ready_chunks(task, 100_010, 10), [alive]))
    silence(raw, silent.id)
    calls.clear()

    purged = purge(stores)

    assert purged == [silent.id]
    assert calls["finds"] < 2 * 100_000 / give_back.BATCH and calls["largest"] <= give_back.BATCH
    assert states(raw) == {
        ("ready", None, 0, 1): 100_000,
        ("ready", alive.id, 0, 1): 10,
        ("leased", None, 1, 0): 10,
    }


def test_many_silent_containers_are_purged_in_one_pass(stores: Any, raw: Any) -> None:
    many = laying.crowd(stores, 300)
    task = laying.running_task(stores)
    laying.add(stores, laying.dealt(laying.ready_chunks(task, 0, 3_000), many))
    laying.add(stores, laying.leased(laying.ready_chunks(task, 3_000, 3_000), many))
    silence(raw, *[one.id for one in many])

    purged = purge(stores)

    assert set(purged) == {one.id for one in many}
    assert states(raw) == {("ready", None, 0, 1): 6_000}


def test_what_a_crash_in_the_middle_of_a_purge_left_is_swept(
    stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, alive = laying.crowd(stores, 2)
    lay_some_for(stores, silent, alive)
    silence(raw, silent.id)
    with monkeypatch.context() as patch:
        patch.setattr(GiveBack, "life", lambda *_, **__: 0)  # the process dies once the life has ended
        purge(stores)
    assert states(raw)["ready", silent.id, 0, 1] == 20

    swept = GiveBack(stores).ended_lives()

    assert swept == 40
    assert states(raw) == {
        ("ready", None, 0, 1): 40,
        ("ready", alive.id, 0, 1): 20,
        ("leased", None, 1, 0): 20,
    }


def test_the_sweep_takes_nothing_from_the_living(stores: Any, raw: Any) -> None:
    one, other = laying.crowd(stores, 2)
    lay_some_for(stores, one, other)

    swept = GiveBack(stores).ended_lives()

    assert swept == 0 and sum(states(raw).values()) == 80


def lay_some_for(stores: Any, *containers: Container) -> None:
    task = laying.running_task(stores)
    for place, one in enumerate(containers):
        laying.add(stores, laying.dealt(laying.ready_chunks(task, 40 * place, 20), [one]))
        laying.add(stores, laying.leased(laying.ready_chunks(task, 40 * place + 20, 20), [one]))


def test_a_registration_gives_a_bounded_part_back_and_housekeeping_the_rest(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give_back, "BATCH", 10)
    monkeypatch.setattr("source_server.services.containers.register.IN_REQUEST", 20)
    who = volunteer()
    lay_some_for(stores, stores.containers.find(who.id), *laying.crowd(stores, 1))

    who.register()
    at_once = states(raw)["ready", None, 0, 1]
    Housekeeper(stores, beat_s=BEAT_S).leases()

    assert at_once == 20 and states(raw)["ready", None, 0, 1] == 40


def test_a_purged_container_comes_back_with_a_new_life_and_delivers_what_it_finished(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    scientist.running(3)
    who = volunteer()
    done, undone, _ = who.claim(3)
    life = who.life
    silence(raw, who.id)
    assert purge(stores) == [who.id]

    who.register()
    delivered = who.add(who.attempt(done))
    again = {chunk["id"] for chunk in who.claim(3)}

    assert who.life != life and delivered.status_code == 200
    accepted = raw.chunks.find_one({"_id": done["id"]})
    assert accepted["state"] == "done"
    assert raw.results.find_one({"_id": accepted["result"]})["container"] == who.id
    assert done["id"] not in again and undone["id"] in again


def test_after_an_outage_only_those_that_stay_silent_while_it_works_again_are_purged(
    volunteer: Any, stores: Any, raw: Any
) -> None:
    """Two housekeepers, one that slept through the outage and one that was started after it."""
    returns, stays_away = volunteer(), volunteer()
    clock = [1000.0]
    keepers = [Housekeeper(stores, beat_s=BEAT_S, monotonic=lambda: clock[0])]
    watch(keepers, clock, stores, seconds=120)
    keepers.append(Housekeeper(stores, beat_s=BEAT_S, monotonic=lambda: clock[0]))
    clock[0] += 3600  # nothing answered for an hour
    silence(raw, returns.id, stays_away.id)

    watch(keepers, clock, stores, seconds=55)
    early = Counter(doc["state"] for doc in raw.containers.find())
    returns.beat()
    watch(keepers, clock, stores, seconds=60)

    assert early == {"live": 2}
    after = {doc["_id"]: doc["state"] for doc in raw.containers.find()}
    assert after == {returns.id: "live", stays_away.id: "purged"}


def watch(keepers: list[Housekeeper], clock: list[float], stores: Any, *, seconds: int) -> None:
    """The housekeepers look at a working service every five seconds of their clock."""
    for _ in range(seconds // 5):
        clock[0] += 5
        stores.meta.mark_serving(stores.clock.now())
        for keeper in keepers:
            keeper.silence()


def test_rested_chunks_are_found_without_looking_at_those_that_rest(stores: Any, raw: Any) -> None:
    task = laying.running_task(stores)
    laying.add(stores, laying.ready_chunks(task, 0, 2_000))
    now = stores.clock.now()
    later, before = now + timedelta(hours=1), now - timedelta(seconds=1)
    raw.chunks.update_many({}, {"$set": {"state": "delayed", "not_before": later}})
    raw.chunks.update_many({"n": {"$lt": 3}}, {"$set": {"not_before": before}})
    raw.command("profile", 2)

    found = stores.chunks.rested(now, limit=1000)

    raw.command("profile", 0)
    asked = raw.system.profile.find_one({"ns": f"{raw.name}.chunks", "op": "query"})
    assert {one.n for one in found} == {0, 1, 2}
    assert asked["docsExamined"] == 3
