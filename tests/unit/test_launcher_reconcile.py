"""What the launcher decides to do about the containers it finds."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from client_container.launcher.clients.reconcile import (
    BATCH,
    Create,
    Found,
    Pace,
    Reason,
    Remove,
    Wanted,
    reconcile,
)

WANTED = Wanted(count=3, config="new")


def container(name: str, slot: int | None, *, config: str = "new", state: str = "running") -> Found:
    return Found(id=name, slot=slot, config=config, state=state)


def three_running() -> list[Found]:
    return [container("a", 0), container("b", 1), container("c", 2)]


def test_when_all_wanted_containers_run_nothing_is_done() -> None:
    found = three_running()

    assert reconcile(WANTED, found) == []


def test_an_empty_engine_gets_one_container_a_slot() -> None:
    assert reconcile(WANTED, []) == [Create(0), Create(1), Create(2)]


def test_no_step_starts_more_than_a_batch() -> None:
    actions = reconcile(Wanted(count=40, config="new"), [])

    assert actions == [Create(slot) for slot in range(BATCH)]


def test_a_dead_container_is_removed_and_its_slot_filled_again() -> None:
    a, _, c = three_running()
    dead = container("b", 1, state="exited")

    assert reconcile(WANTED, [a, dead, c]) == [Remove(dead, Reason.ENDED), Create(1)]


def test_a_container_that_was_made_but_never_started_is_made_again() -> None:
    a, _, c = three_running()
    half = container("b", 1, state="created")

    assert reconcile(WANTED, [a, half, c]) == [Remove(half, Reason.ENDED), Create(1)]


def test_a_held_slot_is_cleared_but_not_filled() -> None:
    a, _, c = three_running()
    dead = container("b", 1, state="exited")

    assert reconcile(WANTED, [a, dead, c], held=[1]) == [Remove(dead, Reason.ENDED)]


def test_a_slot_whose_container_is_being_removed_waits_for_the_name() -> None:
    a, _, c = three_running()
    going = container("b", 1, state="removing")

    assert reconcile(WANTED, [a, going, c]) == []


def test_a_paused_container_counts_as_alive() -> None:
    a, b, _ = three_running()

    assert reconcile(WANTED, [a, b, container("c", 2, state="paused")]) == []


def test_changed_containers_are_replaced_one_by_one() -> None:
    old = [container(name, slot, config="old") for slot, name in enumerate("abc")]

    actions = reconcile(WANTED, old)

    assert actions == [Remove(old[0], Reason.CHANGED), Create(0)]


def test_no_changed_container_is_replaced_while_another_slot_is_empty() -> None:
    old = [container("b", 1, config="old"), container("c", 2, config="old")]

    assert reconcile(WANTED, old, held=[0]) == []


def test_surplus_and_unreadable_containers_are_removed() -> None:
    surplus, unreadable = container("d", 3), container("e", None)

    actions = reconcile(WANTED, [*three_running(), surplus, unreadable])

    assert actions == [Remove(surplus, Reason.SURPLUS), Remove(unreadable, Reason.ORPHAN)]


def test_of_two_containers_in_one_slot_the_one_of_the_wanted_configuration_stays() -> None:
    old = container("x", 0, config="old")

    assert reconcile(WANTED, [old, *three_running()]) == [Remove(old, Reason.DUPLICATE)]


@given(
    count=st.integers(1, 6),
    there=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 9)),
            st.sampled_from(["new", "old"]),
            st.sampled_from(["running", "exited", "created", "paused", "dead"]),
        ),
        max_size=12,
    ),
)
def test_repeating_the_actions_ends_with_exactly_the_wanted_containers(
    count: int, there: list[tuple[int | None, str, str]]
) -> None:
    wanted = Wanted(count=count, config="new")
    names = (f"made-{n}" for n in itertools.count())
    found = {
        f"f{n}": container(f"f{n}", *one[:1], config=one[1], state=one[2]) for n, one in enumerate(there)
    }

    for _ in range(30):
        actions = reconcile(wanted, list(found.values()))
        for action in actions:
            if isinstance(action, Remove):
                del found[action.container.id]
            else:
                made = container(next(names), action.slot)
                assert action.slot not in {one.slot for one in found.values()}
                found[made.id] = made
        if not actions:
            break

    assert reconcile(wanted, list(found.values())) == []
    assert sorted(one.slot for one in found.values() if one.slot is not None) == list(range(count))
    assert len(found) == count
    assert {one.config for one in found.values()} == {"new"}


def test_the_first_death_is_made_good_at_once() -> None:
    assert Pace().after_end(ran_s=2, now=100).not_before == 100


def test_a_crash_loop_slows_down_to_a_minute() -> None:
    pace, waits = Pace(), []
    for _ in range(10):
        pace = pace.after_end(ran_s=0.2, now=100)
        waits.append(pace.not_before - 100)

    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_container_that_ran_for_long_starts_with_a_clean_slate() -> None:
    crashing = Pace(failures=8, not_before=0)

    assert crashing.after_end(ran_s=3600, now=100) == Pace(failures=1, not_before=100)
