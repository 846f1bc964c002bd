"""Exit 65 that was right costs its host nothing in the end; one that nobody confirms costs what every failure does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from calculating import enable
from people import Person, Scientist, Volunteer

from source_server.housekeeping import Housekeeper
from source_server.services.answers.settle_errors import SettleErrors

pytestmark = pytest.mark.mongo

Volunteers = Callable[..., Volunteer]
BAD = {"exit_code": 65, "stderr_tail": "Division by zero.\n"}


@pytest.fixture
def people(app: Any, new_key: Callable[[str], str]) -> Volunteers:
    """Makes volunteers, each of an account of its own, on hosts that nothing is known of."""
    return lambda **extra: Volunteer(app, new_key("volunteer"), **extra)


@pytest.fixture
def asker(app: Any, new_key: Callable[[str], str]) -> Person:
    return Person(app, new_key("scientist"))


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def limit(raw: Any, who: Volunteer) -> float | None:
    """How many chunks its host may hold; None: a newcomer's two."""
    found = raw.hosts.find_one({"host": who.host}) or {}
    return found.get("limit")


def holding(stores: Any, who: Volunteer, count: int) -> None:
    """Let its host hold so many chunks."""
    stores.hosts.succeeded(stores.containers.find(who.id).account, who.host, count - 2, 1)


def rest(raw: Any, keeper: Housekeeper) -> None:
    """Let the pauses after failures be over."""
    for chunk in raw.chunks.find({"state": "delayed"}):
        before = chunk["not_before"] - timedelta(days=1)
        raw.chunks.update_one({"_id": chunk["_id"]}, {"$set": {"not_before": before}})
    keeper.tasks()


def say_bad(who: Volunteer, **other: Any) -> dict[str, Any]:
    """Claim one chunk and say that its data is bad."""
    [chunk] = who.claim(1)
    failed = who.failure(chunk, **{**BAD, **other})
    assert who.add(failed).status_code == 200
    return failed


def test_what_exit_65_cost_a_host_is_given_back_once_another_account_says_the_same(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    task, one, other, idle = scientist.running(1), people(), people(), people()
    holding(stores, one, 9)
    first = say_bad(one)
    after_first = limit(raw, one)
    rest(raw, keeper)

    second = say_bad(other)

    assert after_first == 4.5 and idle
    assert (limit(raw, one), limit(raw, other)) == (9, 2)
    assert raw.chunks.find_one({"task": task})["state"] == "quarantined"
    for who, failed in ((one, first), (other, second), (one, first)):
        who.add(failed)  # a lost answer: sent again, it gives nothing more
    keeper.verdicts()
    assert (limit(raw, one), limit(raw, other)) == (9, 2)


def test_several_confirmed_at_once_give_back_all_that_they_cost_and_other_failures_nothing(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    scientist.running(4)
    one, other, _ = people(), people(), people()
    holding(stores, one, 16), holding(stores, other, 16)
    held = one.claim(4)
    one.add(one.failure(held[0], **BAD))  # 16 to 8
    one.add(one.failure(held[1], **BAD), one.failure(held[2], **BAD))  # to 4, half of it by each
    one.add(one.failure(held[3]))  # to 2, and this is nobody's to confirm
    assert limit(raw, one) == 2
    rest(raw, keeper)

    other.add(*(other.failure(chunk, **BAD) for chunk in other.claim(4)))

    assert limit(raw, one) == 2 + 8 + 4
    assert limit(raw, other) == 16 - 8 + 8 * 3 / 4


def test_a_host_that_says_so_of_everything_still_holds_one_chunk_at_a_time(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any, keeper: Housekeeper
) -> None:
    scientist.running(20)
    liar, sound = people(), people()
    holding(stores, liar, 16)
    for _ in range(8):
        say_bad(liar)
    rest(raw, keeper)
    for chunk in sound.claim(20):
        sound.add(sound.attempt(chunk))

    assert limit(raw, liar) == 1 and len(liar.claim(20)) <= 1


def test_with_nobody_else_to_ask_it_is_final_and_proves_nothing(
    scientist: Scientist, people: Volunteers, stores: Any, raw: Any
) -> None:
    task, alone = scientist.running(1), people()

    say_bad(alone)

    assert raw.chunks.find_one({"task": task})["state"] == "quarantined" and limit(raw, alone) == 1


def test_twenty_five_divisions_by_zero_leave_honest_hosts_what_they_had(
    stores: Any, raw: Any, people: Volunteers, asker: Person, keeper: Housekeeper
) -> None:
    enable(stores)
    built_in, other = people(runtimes=["sandbox"]), people(runtimes=["sandbox"])
    typed = ["1/0"] * 23 + ["1e308 * 10", "-1e308 - 1e308"]
    asked = [asker.ok("POST", "/calculations", {"calculation": text}) for text in typed]
    for _ in range(60):
        rest(raw, keeper)
        for who in (built_in, other):
            for chunk in who.claim(2):
                who.add(who.failure(chunk, **BAD))

    found = [asker.ok("GET", f"/calculations/{one['id']}") for one in asked]

    assert {(one["state"], one["error"]) for one in found} == {("error", "Division by zero.")}
    assert (limit(raw, built_in), limit(raw, other)) == (2, 2)


def test_a_lone_calculator_is_believed_where_the_servers_arithmetic_says_the_same_and_not_elsewhere(
    stores: Any, raw: Any, people: Volunteers, asker: Person
) -> None:
    enable(stores)
    who = people(runtimes=["sandbox"])
    for text, expected in (("1 / 0", 2), ("1 / 0.0", 2), ("1e300 * 1e300", 2), ("1 + 1", 1)):
        asker.ok("POST", "/calculations", {"calculation": text})
        say_bad(who)
        assert limit(raw, who) == expected, text


def test_a_failure_that_is_settled_by_housekeeping_is_forgiven_as_well(
    scientist: Scientist,
    people: Volunteers,
    stores: Any,
    raw: Any,
    keeper: Housekeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, one, other = scientist.running(1), people(), people()
    people()
    say_bad(one)
    rest(raw, keeper)
    with monkeypatch.context() as patch:
        patch.setattr(SettleErrors, "__call__", lambda *_: None)  # the process dies before it settles
        say_bad(other)
    assert (limit(raw, one), limit(raw, other)) == (1, 1)
    old = stores.clock.now() - timedelta(minutes=1)
    raw.errors.update_many({"task": task}, {"$set": {"stored": old}})

    keeper.verdicts()

    assert raw.chunks.find_one({"task": task})["state"] == "quarantined"
    assert (limit(raw, one), limit(raw, other)) == (2, 2)


def test_failures_at_the_least_push_out_of_the_record_nothing_that_cost_something(
    stores: Any, raw: Any
) -> None:
    stores.hosts.succeeded("a", "h", 6, 1)
    for n in range(200):
        stores.hosts.halve("a", "h", 1, [f"e{n}"])
    noted = len(raw.hosts.find_one()["halved"])

    given = [stores.hosts.restore("a", "h", [f"e{n}" for n in range(200)], 1) for _ in range(2)]

    assert given == [True, False] and noted == 3
    assert raw.hosts.find_one()["limit"] == 8 and raw.hosts.find_one()["halved"] == []
