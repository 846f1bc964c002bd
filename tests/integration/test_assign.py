"""`/assign`: dealt round-robin from the database, levelled, and nothing twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from source_server.housekeeping import Housekeeper
from source_server.services.give_back import GiveBack


def assigned(raw: Any) -> Counter[str]:
    return Counter(
        doc["assigned"]["container"] for doc in raw.chunks.find({"assigned": {"$ne": None}}, {"assigned": 1})
    )


def die(stores: Any, who: Any) -> None:
    """What a purge does to a container that fell silent."""
    from source_server.domain.container import ContainerState

    record = stores.containers.find(who.id)
    assert stores.containers.end_life(record, ContainerState.PURGED, next_life="gone", forget_key=False)
    GiveBack(stores).life(record.id, record.life)


def test_1003_chunks_over_7_containers_are_143_or_144_each_and_stay_so_as_they_come_and_go(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    crowd = [volunteer() for _ in range(7)]
    scientist.running(1003)

    first = scientist.ok("POST", "/assign/all")
    assert set(first["dealt"].values()) == {143, 144} and sum(first["dealt"].values()) == 1003
    assert first["holding"] == first["dealt"] and first["remaining"] == 0
    before = {doc["_id"]: doc["assigned"] for doc in raw.chunks.find()}

    for _ in range(3):
        die(stores, crowd.pop(0))
        crowd.append(volunteer())
        again = scientist.ok("POST", "/assign/all")
        after = {doc["_id"]: doc["assigned"] for doc in raw.chunks.find()}

        assert set(assigned(raw).values()) == {143, 144} and set(assigned(raw)) == {who.id for who in crowd}
        moved = [one for one in after if after[one] != before[one]]
        assert len(moved) == sum(again["dealt"].values()) in (143, 144)
        assert again["holding"] == dict(assigned(raw))
        before = after


def test_a_repeat_deals_only_what_is_new(scientist: Any, volunteer: Any) -> None:
    volunteer(), volunteer()
    scientist.running(10)

    first = scientist.ok("POST", "/assign/all")
    again = scientist.ok("POST", "/assign/all")

    assert sorted(first["dealt"].values()) == [5, 5]
    assert again["dealt"] == {} and again["holding"] == first["holding"]


def test_what_a_container_has_leased_already_is_levelled_with(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    busy, idle = volunteer(), volunteer()
    scientist.running(10)
    busy.claim(4)

    answer = scientist.ok("POST", "/assign/all")

    assert answer["dealt"] == {busy.id: 1, idle.id: 5}


def test_what_was_dealt_to_a_container_is_claimed_by_it_first(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    one, other = volunteer(), volunteer()
    scientist.running(20)
    scientist.ok("POST", "/assign/all")
    mine = {doc["_id"] for doc in raw.chunks.find({"assigned.container": one.id})}

    claimed = {chunk["id"] for chunk in one.claim(10)}

    assert claimed == mine and other.id in assigned(raw)


def test_an_idle_container_takes_over_at_most_half_of_the_fullest_ones_backlog(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    full = volunteer()
    scientist.running(10)
    scientist.ok("POST", "/assign/all")
    late = volunteer()

    taken = late.claim(100)

    assert len(taken) == 5
    assert assigned(raw) == {full.id: 5}


def test_assigning_starts_waiting_tasks_of_that_project_only(scientist: Any, volunteer: Any) -> None:
    volunteer()
    task, other = scientist.task(4), scientist.task(4, project="other")

    answer = scientist.ok("POST", "/assign/sums")

    assert answer["tasks"] == [task] and sum(answer["dealt"].values()) == 4
    assert scientist.ok("GET", f"/tasks/{other}")["state"] == "waiting"


def test_what_no_container_fits_is_unassignable_and_without_containers_all_remains(
    scientist: Any, volunteer: Any
) -> None:
    scientist.running(3, image="sha256:" + "b" * 64)
    alone = scientist.ok("POST", "/assign/all")
    volunteer()

    answer = scientist.ok("POST", "/assign/all")

    assert alone["unassignable"] == 3
    assert (answer["dealt"], answer["remaining"], answer["unassignable"]) == ({}, 0, 3)


def test_a_deal_too_large_for_its_request_is_finished_by_housekeeping(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from source_server.services import assign

    monkeypatch.setattr(assign, "BATCH", 10)
    one, other = volunteer(), volunteer()
    scientist.running(77)

    answer = scientist.call("POST", "/assign/all")
    deal = answer.get_json()
    keeper = Housekeeper(stores, beat_s=20.0)
    for _ in range(5):
        keeper.deals()
    after = scientist.ok("GET", f"/deals/{deal['id']}")

    assert answer.status_code == 202 and sum(deal["dealt"].values()) == 50 and not deal["done"]
    assert after["done"] and sorted(after["dealt"].values()) == [38, 39]
    assert after["dealt"] == dict(assigned(raw)) and set(after["dealt"]) == {one.id, other.id}


def test_a_deal_broken_off_between_plan_and_count_is_finished_and_counted_once(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from source_server.stores.deals import Deals

    one, other = volunteer(), volunteer()
    scientist.running(30)
    with monkeypatch.context() as patch:
        patch.setattr(Deals, "advance", lambda *_: False)  # every process dies just before it counts
        deal = scientist.ok("POST", "/assign/all")
    assert not deal["done"] and deal["dealt"] == {} and sum(assigned(raw).values()) == 30

    keeper = Housekeeper(stores, beat_s=20.0)
    keeper.deals()
    keeper.deals()

    after = scientist.ok("GET", f"/deals/{deal['id']}")
    assert after["done"] and after["dealt"] == {one.id: 15, other.id: 15} == dict(assigned(raw))


def test_a_deal_is_its_owners_to_see(scientist: Any, app: Any, new_key: Any) -> None:
    deal = scientist.ok("POST", "/assign/all")
    stranger = type(scientist)(app, new_key("scientist"))

    assert stranger.call("GET", f"/deals/{deal['id']}").status_code == 404


def test_two_deals_at_once_count_each_chunk_once(
    scientist: Any, volunteer: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from source_server.stores.deals import Deals

    volunteer(), volunteer()
    scientist.running(20)
    really_plan = Deals.plan
    inner: list[Any] = []

    def overtaken(self: Deals, deal: Any, plan: Any) -> bool:
        if not inner:
            inner.append(None)
            inner[0] = scientist.ok(
                "POST", "/assign/all"
            )  # another request deals the very same chunks meanwhile
        return really_plan(self, deal, plan)

    monkeypatch.setattr(Deals, "plan", overtaken)

    outer = scientist.ok("POST", "/assign/all")

    assert sum(inner[0]["dealt"].values()) == 20 and sum(outer["dealt"].values()) == 0


def test_a_project_is_dealt_with_regard_to_what_other_projects_gave(scientist: Any, volunteer: Any) -> None:
    busy = volunteer()
    scientist.running(10, project="other")
    scientist.ok("POST", "/assign/other")
    idle = volunteer()
    scientist.running(10)

    answer = scientist.ok("POST", "/assign/sums")

    assert answer["dealt"] == {idle.id: 10} and answer["holding"] == {busy.id: 10, idle.id: 10}
