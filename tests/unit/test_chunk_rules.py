"""The table of a chunk's life, checked event by event and under any sequence of events. Time is handed in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain import chunk as rules
from source_server.domain.chunk import Chunk, ChunkState, Failure, Holder, Lease, WrongState

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def fresh(**other: object) -> Chunk:
    made = Chunk(id="t.0", project="p", task="t", n=0, r=0.5, rev=1, upload="u")
    return replace(made, **other)


def lease(container: str = "c1", token: str = "t1") -> Lease:
    return Lease(
        token=token,
        container=container,
        life=f"life of {container}",
        host=f"host of {container}",
        account="a",
        since=NOW,
        until=NOW + timedelta(minutes=5),
    )


def failure(host: str = "h1") -> Failure:
    return Failure(host=host, account="a", signature="failed")


def test_leasing_hands_the_only_replica_out_and_ends_the_assignment() -> None:
    dealt = rules.assign(fresh(), Holder(container="c1", life="life of c1"))

    leased = rules.lease(dealt, lease())

    assert (leased.state, leased.wanted, leased.assigned) == (ChunkState.LEASED, 0, None)


def test_a_leased_chunk_is_not_leased_again_without_another_replica() -> None:
    with pytest.raises(WrongState):
        rules.lease(rules.lease(fresh(), lease()), lease("c2", "t2"))


def test_a_chunk_that_wants_two_replicas_is_ready_while_one_is_computed_and_never_twice_on_one_container() -> (
    None
):
    leased = rules.lease(fresh(wanted=2), lease())

    assert leased.state is ChunkState.READY and leased.wanted == 1
    with pytest.raises(WrongState):
        rules.lease(leased, lease("c1", "t2"))
    assert rules.lease(leased, lease("c2", "t2")).state is ChunkState.LEASED


def test_an_assigned_chunk_is_not_assigned_again() -> None:
    with pytest.raises(WrongState):
        rules.assign(rules.assign(fresh(), Holder(container="c", life="l")), Holder(container="d", life="m"))


def test_giving_back_needs_the_very_lease() -> None:
    with pytest.raises(WrongState):
        rules.give_back(rules.lease(fresh(), lease()), container="c1", token="another")


def test_only_a_lease_lost_while_executing_counts_as_a_loss() -> None:
    waiting = rules.lease(fresh(), lease())
    started = rules.start(waiting, container="c1", now=NOW, until=NOW + timedelta(minutes=1))

    def losses(chunk: Chunk, *, lost: bool) -> int:
        return rules.give_back(chunk, container="c1", token="t1", lost=lost).losses

    assert losses(waiting, lost=True) == losses(started, lost=False) == 0
    assert losses(started, lost=True) == 1


def test_a_failure_delays_and_each_further_one_delays_longer_up_to_an_hour() -> None:
    failed = rules.fail(rules.lease(fresh(), lease()), container="c1", token="t1", failure=failure(), now=NOW)

    assert failed.state is ChunkState.DELAYED and failed.not_before == NOW + timedelta(seconds=10)
    assert [rules.delay(n).total_seconds() for n in (1, 2, 3, 9, 10, 99)] == [10, 20, 40, 2560, 3600, 3600]


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ({"failures": 1, "failed": (failure("h2"),)}, ChunkState.DELAYED),
        ({"failures": 2, "failed": (failure("h2"), failure("h3"))}, ChunkState.QUARANTINED),
        ({"failures": 4, "failed": (failure("h1"),)}, ChunkState.DELAYED),
        ({"failures": 5, "failed": (failure("h1"),)}, ChunkState.QUARANTINED),
    ],
)
def test_three_hosts_or_six_failures_quarantine(history: dict[str, object], state: ChunkState) -> None:
    leased = rules.lease(fresh(**history), lease())

    failed = rules.fail(leased, container="c1", token="t1", failure=failure("h1"), now=NOW)

    assert failed.state is state


def test_five_losses_while_executing_quarantine() -> None:
    leased = rules.lease(fresh(losses=4), lease())
    started = rules.start(leased, container="c1", now=NOW, until=NOW)

    assert rules.give_back(started, container="c1", token="t1", lost=True).state is ChunkState.QUARANTINED


@pytest.mark.parametrize(
    "state", [one for one in ChunkState if one not in (ChunkState.DONE, ChunkState.CANCELLED)]
)
def test_a_late_good_result_is_never_refused(state: ChunkState) -> None:
    done = rules.accept(fresh(state=state), "r1")

    assert (done.state, done.result, done.leases) == (ChunkState.DONE, "r1", ())


@pytest.mark.parametrize(
    "chunk", [fresh(state=ChunkState.DONE, result="r1"), fresh(state=ChunkState.CANCELLED)]
)
def test_a_decided_chunk_takes_no_other_result(chunk: Chunk) -> None:
    with pytest.raises(WrongState):
        rules.accept(chunk, "r2")


def test_requeueing_forgets_the_count_but_cancelled_and_done_stay() -> None:
    quarantined = fresh(state=ChunkState.QUARANTINED, failures=6, failed=(failure(),), losses=2)

    again = rules.requeue(quarantined)

    assert (again.state, again.failures, again.failed, again.losses) == (ChunkState.READY, 0, (), 0)
    for state in (ChunkState.DONE, ChunkState.CANCELLED, ChunkState.READY):
        with pytest.raises(WrongState):
            rules.requeue(fresh(state=state))


CONTAINERS = st.sampled_from(["c1", "c2", "c3"])
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["assign", "lease", "start", "back", "lost", "fail", "accept", "wake", "requeue", "cancel"]
        ),
        CONTAINERS,
    ),
    max_size=60,
)


def happen(chunk: Chunk, event: str, who: str, step: int) -> Chunk:
    held = next((one for one in chunk.leases if one.container == who), None)
    token = held.token if held else "none"
    if event == "assign":
        return rules.assign(chunk, Holder(container=who, life="l"))
    if event == "lease":
        return rules.lease(chunk, lease(who, f"t{step}"))
    if event == "start":
        return rules.start(chunk, container=who, now=NOW, until=NOW)
    if event in ("back", "lost"):
        return rules.give_back(chunk, container=who, token=token, lost=event == "lost")
    if event == "fail":
        return rules.fail(chunk, container=who, token=token, failure=failure(who), now=NOW)
    if event == "accept":
        return rules.accept(chunk, f"r{step}")
    return {"wake": rules.wake, "requeue": rules.requeue, "cancel": rules.cancel}[event](chunk)


@given(st.integers(1, 3), EVENTS)
def test_no_sequence_of_events_loses_a_replica_or_changes_an_accepted_result(
    replicas: int, events: list[tuple[str, str]]
) -> None:
    chunk = fresh(wanted=replicas)

    for step, (event, who) in enumerate(events):
        before = chunk
        try:
            chunk = happen(chunk, event, who, step)
        except WrongState:
            continue

        assert before.result is None or chunk.result == before.result
        assert (chunk.result is not None) == (chunk.state is ChunkState.DONE)
        assert len({one.container for one in chunk.leases}) == len(chunk.leases)
        assert chunk.assigned is None or chunk.state is ChunkState.READY
        assert (chunk.not_before is not None) <= (chunk.state is ChunkState.DELAYED)
        assert len(chunk.failed) <= rules.MAX_LISTED
        if chunk.state in rules.OPEN_STATES:
            assert chunk.wanted + len(chunk.leases) == replicas
        if chunk.state is ChunkState.LEASED:
            assert chunk.wanted == 0
        if chunk.state in (ChunkState.DONE, ChunkState.CANCELLED):
            assert not chunk.leases and chunk.wanted == 0
