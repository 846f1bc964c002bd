"""`/assign`: dealt round-robin from the database, levelled, and nothing twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from source_server.domain.trust import HostRecord
from source_server.housekeeping import Housekeeper
from source_server.services.containers.give_back import GiveBack
from source_server.services.dispatch import assign
from source_server.services.dispatch.plan_deal import PlanDeal
from source_server.stores.deals import Deal, Deals
from source_server.stores.gate import DatabaseUnavailable, Gate


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


def fall_silent(raw: Any) -> None:
    """As if the process that has the deal in hand had written nothing for a minute."""
    touched = raw.deals.find_one({"done": False})["touched"]
    raw.deals.update_many({"done": False}, {"$set": {"touched": touched - timedelta(minutes=1)}})


def test_a_deal_broken_off_between_plan_and_count_is_finished_and_counted_once(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = volunteer(), volunteer()
    scientist.running(30)
    with monkeypatch.context() as patch:
        patch.setattr(Deals, "advance", lambda *_: False)  # the process dies just before it counts
        deal = scientist.ok("POST", "/assign/all")
    assert not deal["done"] and deal["dealt"] == {} and sum(assigned(raw).values()) == 30

    fall_silent(raw)
    Housekeeper(stores, beat_s=20.0).deals()

    after = scientist.ok("GET", f"/deals/{deal['id']}")
    assert after["done"] and after["dealt"] == {one.id: 15, other.id: 15} == dict(assigned(raw))


def test_a_deal_broken_off_after_its_plan_is_carried_out_by_another_process(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = volunteer(), volunteer()
    scientist.running(30)
    with monkeypatch.context() as patch:
        patch.setattr(Deals, "plan", planned_and_died(Deals.plan))
        deal = scientist.ok("POST", "/assign/all")
    planned = raw.deals.find_one({})["plan"]
    assert len(planned) == 30 and not assigned(raw)

    fall_silent(raw)
    Housekeeper(stores, beat_s=20.0).deals()

    after = scientist.ok("GET", f"/deals/{deal['id']}")
    assert after["done"] and after["dealt"] == {one.id: 15, other.id: 15}
    written = [[doc["_id"], *doc["assigned"].values()] for doc in raw.chunks.find()]
    assert sorted(written) == sorted(planned)


def dealing(then: Any, *, share: float = 1.0) -> Any:
    """The gate's bulk of guarded updates; at the first that deals chunks only this share is written, then `then` is
    called."""
    really, done = Gate.guarded, list[None]()

    def guarded(self: Gate, updates: Any, **rest: Any) -> int:
        if done or not updates or not updates[0][1]["$set"].get("assigned"):
            return really(self, updates, **rest)
        done.append(None)
        matched = really(self, updates[: int(len(updates) * share)], **rest)
        then()
        return matched

    return guarded


def test_a_chunk_that_its_container_claims_or_answers_in_the_moment_it_is_dealt_is_counted(
    scientist: Any, volunteer: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = volunteer(), volunteer()
    scientist.running(30)
    really_plan = Deals.plan

    def overtaken(self: Deals, deal: Deal) -> bool:
        raw.chunks.update_one({"_id": deal.plan[0][0]}, {"$set": {"rev": 1}})  # one has moved on meanwhile
        return really_plan(self, deal)

    def claim_and_answer() -> None:
        for chunk in one.claim(3)[:2]:
            one.add(one.attempt(chunk))
        other.claim(2)

    monkeypatch.setattr(Deals, "plan", overtaken)
    monkeypatch.setattr(Gate, "guarded", dealing(claim_and_answer))

    answer = scientist.ok("POST", "/assign/all")

    # What moved on is dealt to nobody: the deal has gone past it.
    assert sorted(answer["dealt"].values()) == [14, 15] and answer["remaining"] == 1
    assert sum(assigned(raw).values()) == 29 - 3 - 2  # which of the two got 15 is chance


def test_a_deal_that_dies_in_the_middle_of_a_batch_counts_what_it_dealt_and_what_is_dealt_for_it_once(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = volunteer()
    scientist.running(30)

    def die() -> None:
        for chunk in one.claim(5)[:3]:
            one.add(one.attempt(chunk))
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Gate, "guarded", dealing(die, share=0.5))
        died = scientist.call("POST", "/assign/all")
    [deal] = raw.deals.find()
    back = raw.chunks.find_one({"leases.0": {"$exists": True}})["_id"]
    one.call("POST", "/release", {"chunks": [back]})  # given back: this deal does not deal it again

    fall_silent(raw)
    Housekeeper(stores, beat_s=20.0).deals()

    after = scientist.ok("GET", f"/deals/{deal['_id']}")
    assert died.status_code == 503 and not deal["done"] and len(deal["plan"]) == 30
    assert after["done"] and after["dealt"] == {one.id: 30}
    assert sum(assigned(raw).values()) == 30 - 5 and raw.chunks.find_one({"_id": back})["state"] == "ready"


def planned_and_died(really_plan: Any) -> Any:
    def plan(self: Deals, deal: Deal) -> bool:
        really_plan(self, deal)
        return False

    return plan


def test_a_deal_in_hand_is_left_to_its_process_until_that_falls_silent(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    volunteer()
    scientist.running(30)
    task = raw.tasks.find_one({})["_id"]
    now = stores.clock.now()
    deal = Deal(id="d", owner="o", tasks=(task,), created=now, hand="somebody", touched=now)
    stores.deals.add(deal)
    keeper = Housekeeper(stores, beat_s=20.0)

    keeper.deals()
    while_at_work = sum(assigned(raw).values())
    fall_silent(raw)
    keeper.deals()

    assert while_at_work == 0 and sum(assigned(raw).values()) == 30


def test_whoever_lost_a_deal_to_another_process_can_neither_plan_nor_count_nor_end_it(stores: Any) -> None:
    now = stores.clock.now()
    mine = Deal(id="d", owner="o", tasks=("t",), created=now, hand="mine", touched=now)
    stores.deals.add(mine)

    theirs = stores.deals.take("d", "theirs", now, silent_since=now + timedelta(seconds=1))
    planned = replace(mine, plan=(("t.1", "c", "l"),))
    counted = replace(mine, step=1, dealt={"c": 1})

    assert stores.deals.take("d", "third", now, silent_since=now - timedelta(seconds=1)) is None
    assert not stores.deals.plan(planned) and not stores.deals.advance(counted)
    assert not stores.deals.finish(mine) and not stores.deals.release(mine)
    assert stores.deals.plan(replace(theirs, plan=planned.plan))
    assert stores.deals.advance(replace(theirs, step=1, dealt={"c": 1}))
    assert stores.deals.find("d").dealt == {"c": 1}


def test_what_containers_hold_is_counted_once_in_a_deal_of_many_batches(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, idle = volunteer(), volunteer()
    scientist.running(100, timeout_s=1.0)
    assert len(busy.claim(40)) == 40
    counted: list[None] = []
    really = PlanDeal.holding

    def holding(self: PlanDeal) -> Any:
        counted.append(None)
        return really(self)

    with monkeypatch.context() as patch:
        patch.setattr(assign, "BATCH", 7)
        patch.setattr(assign, "IN_REQUEST", 100)
        patch.setattr(PlanDeal, "holding", holding)
        answer = scientist.ok("POST", "/assign/all")

    assert answer["dealt"] == {busy.id: 10, idle.id: 50}
    assert answer["holding"] == {busy.id: 50, idle.id: 50}
    assert len(counted) == 2  # for the deal, and for its report


def test_a_container_that_comes_while_a_deal_goes_on_is_dealt_to(
    scientist: Any, volunteer: Any, stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assign, "BATCH", 10)
    first = volunteer()
    scientist.running(90)

    deal = scientist.call("POST", "/assign/all").get_json()
    second = volunteer()
    Housekeeper(stores, beat_s=20.0).deals()

    assert deal["dealt"] == {first.id: 50}
    assert scientist.ok("GET", f"/deals/{deal['id']}")["dealt"] == {first.id: 50, second.id: 40}


def test_a_deal_is_its_owners_to_see(scientist: Any, app: Any, new_key: Any) -> None:
    deal = scientist.ok("POST", "/assign/all")
    stranger = type(scientist)(app, new_key("scientist"))

    assert stranger.call("GET", f"/deals/{deal['id']}").status_code == 404


def test_two_deals_at_once_count_each_chunk_once(
    scientist: Any, volunteer: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volunteer(), volunteer()
    scientist.running(20)
    really_plan = Deals.plan
    inner: list[Any] = []

    def overtaken(self: Deals, deal: Deal) -> bool:
        if not inner:
            inner.append(None)
            # Another request deals the very same chunks meanwhile.
            inner[0] = scientist.ok("POST", "/assign/all")
        return really_plan(self, deal)

    monkeypatch.setattr(Deals, "plan", overtaken)

    outer = scientist.ok("POST", "/assign/all")

    assert sum(inner[0]["dealt"].values()) == 20 and sum(outer["dealt"].values()) == 0


def test_many_small_tasks_are_levelled_together(scientist: Any, volunteer: Any, raw: Any) -> None:
    crowd = [volunteer() for _ in range(3)]
    for _ in range(6):
        scientist.task(1)

    answer = scientist.ok("POST", "/assign/all")

    assert answer["dealt"] == {who.id: 2 for who in crowd}


def test_a_project_is_dealt_with_regard_to_what_other_projects_gave(scientist: Any, volunteer: Any) -> None:
    busy = volunteer()
    scientist.running(10, project="other")
    scientist.ok("POST", "/assign/other")
    idle = volunteer()
    scientist.running(10)

    answer = scientist.ok("POST", "/assign/sums")

    assert answer["dealt"] == {idle.id: 10} and answer["holding"] == {busy.id: 10, idle.id: 10}


# --- by speed


def test_by_speed_a_container_is_dealt_as_much_as_it_is_fast(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    slow, fast, new = volunteer(), volunteer(), volunteer()
    for who, rate in ((slow, 10.0), (fast, 90.0)):
        raw.containers.update_one({"_id": who.id}, {"$set": {"rate": rate}})
    scientist.running(150)

    answer = scientist.ok("POST", "/assign/all?by=speed")

    assert answer["dealt"] == {slow.id: 10, fast.id: 90, new.id: 50}  # a newcomer counts as the median


def test_by_speed_goes_for_one_project_and_for_all_batches(
    scientist: Any, volunteer: Any, stores: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assign, "BATCH", 10)
    slow, fast = volunteer(), volunteer()
    for who, rate in ((slow, 1.0), (fast, 4.0)):
        raw.containers.update_one({"_id": who.id}, {"$set": {"rate": rate}})
    scientist.running(100)

    deal = scientist.call("POST", "/assign/sums?by=speed").get_json()
    Housekeeper(stores, beat_s=20.0).deals()

    assert scientist.ok("GET", f"/deals/{deal['id']}")["dealt"] == {slow.id: 20, fast.id: 80}


@pytest.mark.parametrize("by", ["", "Speed", "weight"])
def test_dealing_by_anything_else_is_refused_and_deals_nothing(
    scientist: Any, volunteer: Any, raw: Any, by: str
) -> None:
    volunteer()
    scientist.task(4)

    answers = [scientist.call("POST", f"/assign/{what}?by={by}") for what in ("all", "sums")]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].get_json() == {"error": "by is one of count, speed."}
    assert not assigned(raw) and raw.tasks.find_one({})["state"] == "waiting"


# --- who may have it


def test_a_chunk_that_failed_on_a_host_is_dealt_to_another_one(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    here, elsewhere = volunteer(), volunteer()
    scientist.running(20)
    who = {"host": here.host, "account": raw.containers.find_one({"_id": here.id})["account"]}
    failure = {"error": "e", **who, "signature": "s", "bad_data": False}
    raw.chunks.update_many({"n": {"$lt": 8}}, {"$set": {"failed": [failure], "failures": 1}})

    scientist.ok("POST", "/assign/all")

    failed = raw.chunks.find({"n": {"$lt": 8}})
    assert {doc["assigned"]["container"] for doc in failed} == {elsewhere.id}
    assert set(assigned(raw)) == {here.id, elsewhere.id} and sum(assigned(raw).values()) == 20


def test_nothing_is_dealt_to_a_host_in_quarantine(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    bad, good = volunteer(), volunteer()
    account = stores.containers.find(bad.id).account
    assert stores.hosts.quarantine(HostRecord(account=account, host=bad.host), stores.clock.now(), "it lies")
    scientist.running(10)

    answer = scientist.ok("POST", "/assign/all")

    assert answer["dealt"] == {good.id: 10}


# --- assigned-only projects


def keep_house(stores: Any) -> None:
    keeper = Housekeeper(stores, beat_s=20.0)
    keeper.redeal()
    keeper.deals()


def test_in_an_assigned_only_project_what_comes_back_is_dealt_again(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    gone, stays = volunteer(), volunteer()
    scientist.running(10)
    stores.projects.change("sums", assigned_only=True)
    scientist.ok("POST", "/assign/sums")
    die(stores, gone)
    assert assigned(raw) == {stays.id: 5}

    keep_house(stores)

    assert assigned(raw) == {stays.id: 10}
    deals = list(raw.deals.find({}))
    assert len(deals) == 2 and len({deal["owner"] for deal in deals}) == 1


def test_only_what_was_dealt_once_and_only_in_such_projects_is_dealt_again(
    scientist: Any, volunteer: Any, stores: Any, raw: Any
) -> None:
    gone, _ = volunteer(), volunteer()
    scientist.running(10)
    scientist.running(10, project="new")
    stores.projects.change("new", assigned_only=True)
    scientist.ok("POST", "/assign/sums")
    die(stores, gone)
    before = assigned(raw)

    keep_house(stores)

    assert assigned(raw) == before and raw.deals.count_documents({}) == 1


def test_what_nobody_can_have_makes_no_deals(scientist: Any, volunteer: Any, stores: Any, raw: Any) -> None:
    only = volunteer()
    scientist.running(10)
    stores.projects.change("sums", assigned_only=True)
    scientist.ok("POST", "/assign/sums")
    die(stores, only)

    for _ in range(3):
        keep_house(stores)

    assert raw.deals.count_documents({}) == 1

    late = volunteer()
    keep_house(stores)
    assert assigned(raw) == {late.id: 10}
