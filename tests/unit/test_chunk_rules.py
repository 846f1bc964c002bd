"""The table of a chunk's life, checked event by event and under any sequence of events. Time is handed in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain import transitions as rules
from source_server.domain.chunk import (
    MAX_LISTED,
    OPEN_STATES,
    Candidate,
    Chunk,
    ChunkState,
    Failure,
    Holder,
    Lease,
)
from source_server.domain.quarantine import Fleet
from source_server.domain.transitions import WrongState

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
TWO_ACCOUNTS = Fleet(hosts=frozenset({"h1", "h2", "h3", "h4"}), accounts=frozenset({"a", "b"}))


def fresh(replicas: int = 1, **other: object) -> Chunk:
    made = Chunk(
        id="t.0", project="p", task="t", n=0, r=0.5, rev=1, upload="u", replicas=replicas, wanted=replicas
    )
    return replace(made, **other)


def lease(container: str = "c1", token: str = "t1", host: str | None = None) -> Lease:
    return Lease(
        token=token,
        container=container,
        life=f"life of {container}",
        host=host or f"host of {container}",
        account=f"account of {container}",
        since=NOW,
        until=NOW + timedelta(minutes=5),
    )


def candidate(result: str = "r1", container: str = "c1") -> Candidate:
    return Candidate(
        result=result,
        account=f"account of {container}",
        host=f"host of {container}",
        container=container,
        digest=f"digest of {result}",
    )


def failure(host: str = "h1", account: str = "a", *, error: str = "e", bad_data: bool = False) -> Failure:
    return Failure(error=error, host=host, account=account, signature="failed", bad_data=bad_data)


def accepted(chunk: Chunk, result: str = "r1") -> Chunk:
    return rules.accept(rules.propose(chunk, candidate(result)), result)


# --- handing out


def test_leasing_hands_the_only_replica_out_and_ends_the_assignment() -> None:
    dealt = rules.assign(fresh(), Holder(container="c1", life="life of c1"))

    leased = rules.lease(dealt, lease())

    assert (leased.state, leased.wanted, leased.assigned) == (ChunkState.LEASED, 0, None)


def test_a_leased_chunk_is_not_leased_again_without_another_replica() -> None:
    with pytest.raises(WrongState):
        rules.lease(rules.lease(fresh(), lease()), lease("c2", "t2"))


def test_two_replicas_are_handed_out_to_two_containers_and_the_chunk_is_ready_in_between() -> None:
    leased = rules.lease(fresh(2), lease())

    assert leased.state is ChunkState.READY and leased.wanted == 1
    with pytest.raises(WrongState):
        rules.lease(leased, lease("c1", "t2"))
    assert rules.lease(leased, lease("c2", "t2")).state is ChunkState.LEASED


def test_an_assigned_chunk_is_not_assigned_again_but_after_it_was_given_back() -> None:
    dealt = rules.assign(fresh(), Holder(container="c", life="l"))

    with pytest.raises(WrongState):
        rules.assign(dealt, Holder(container="d", life="m"))
    assert rules.assign(rules.unassign(dealt), Holder(container="d", life="m")).assigned is not None
    with pytest.raises(WrongState):
        rules.unassign(fresh())


def test_a_hedge_is_one_lease_more_on_another_host_while_the_first_goes_on() -> None:
    leased = rules.lease(fresh(), lease())

    hedged = rules.hedge(leased, lease("c2", "t2"))

    assert (len(hedged.leases), hedged.state, hedged.wanted) == (2, ChunkState.LEASED, 0)
    for refused, chunk in ((lease("c3", "t3", host="host of c1"), leased), (lease("c3", "t3"), hedged)):
        with pytest.raises(WrongState):
            rules.hedge(chunk, refused)


def test_a_chunk_with_a_replica_still_to_hand_out_is_not_hedged() -> None:
    with pytest.raises(WrongState):
        rules.hedge(rules.lease(fresh(2), lease()), lease("c2", "t2"))


def test_a_canary_tests_a_container_on_a_settled_chunk_and_changes_nothing_else() -> None:
    done = accepted(fresh())

    tested = rules.canary(done, lease("c2", "t2"))

    assert tested.leases[0].canary and replace(tested, leases=()) == done
    assert rules.give_back(tested, container="c2", token="t2", lost=True) == done
    with pytest.raises(WrongState):
        rules.canary(fresh(), lease("c2", "t2"))


# --- coming back


@pytest.mark.parametrize(("container", "token"), [("c1", "another"), ("c2", "t1")])
def test_giving_back_needs_the_very_lease(container: str, token: str) -> None:
    with pytest.raises(WrongState):
        rules.give_back(rules.lease(fresh(), lease()), container=container, token=token)


def test_giving_one_lease_back_leaves_the_others_and_offers_its_replica_again() -> None:
    both = rules.lease(rules.lease(fresh(2), lease()), lease("c2", "t2"))

    back = rules.give_back(both, container="c1", token="t1")

    assert [one.container for one in back.leases] == ["c2"]
    assert (back.state, back.wanted) == (ChunkState.READY, 1)


def test_a_hedge_that_comes_back_offers_nothing_because_the_first_still_computes() -> None:
    hedged = rules.hedge(rules.lease(fresh(), lease()), lease("c2", "t2"))

    back = rules.give_back(hedged, container="c2", token="t2")

    assert (back.state, back.wanted, len(back.leases)) == (ChunkState.LEASED, 0, 1)


def test_only_a_lease_lost_while_executing_counts_as_a_loss() -> None:
    waiting = rules.lease(fresh(), lease())
    started = rules.start(waiting, container="c1", now=NOW, until=NOW + timedelta(minutes=1))

    def losses(chunk: Chunk, *, lost: bool) -> int:
        return rules.give_back(chunk, container="c1", token="t1", lost=lost).losses

    assert losses(waiting, lost=True) == losses(started, lost=False) == 0
    assert losses(started, lost=True) == 1


# --- failing


def test_a_failure_delays_and_each_further_one_delays_longer_up_to_an_hour() -> None:
    failed = rules.fail(rules.lease(fresh(), lease()), container="c1", token="t1", failure=failure(), now=NOW)

    assert failed.state is ChunkState.DELAYED and failed.not_before == NOW + timedelta(seconds=10)
    assert rules.wake(failed).state is ChunkState.READY
    assert [rules.delay(n).total_seconds() for n in (1, 2, 3, 9, 10, 99)] == [10, 20, 40, 2560, 3600, 3600]


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ({"failures": 1, "failed": (failure("h2", "b"),)}, ChunkState.DELAYED),
        ({"failures": 2, "failed": (failure("h2", "b"), failure("h3"))}, ChunkState.QUARANTINED),
        ({"failures": 2, "failed": (failure("h2"), failure("h3"))}, ChunkState.DELAYED),
        ({"failures": 4, "failed": (failure("h1"),)}, ChunkState.DELAYED),
        ({"failures": 5, "failed": (failure("h1"),)}, ChunkState.QUARANTINED),
    ],
)
def test_three_hosts_of_two_accounts_or_six_failures_quarantine(
    history: dict[str, object], state: ChunkState
) -> None:
    leased = rules.lease(fresh(**history), lease())

    failed = rules.fail(
        leased, container="c1", token="t1", failure=failure("h1"), now=NOW, fleet=TWO_ACCOUNTS
    )

    assert failed.state is state


def test_with_a_single_account_live_three_of_its_hosts_suffice() -> None:
    alone = replace(TWO_ACCOUNTS, accounts=frozenset({"a"}))
    leased = rules.lease(fresh(failures=2, failed=(failure("h2"), failure("h3"))), lease())

    failed = rules.fail(leased, container="c1", token="t1", failure=failure("h1"), now=NOW, fleet=alone)

    assert failed.state is ChunkState.QUARANTINED


def test_a_chunk_that_waits_after_failing_is_not_set_aside_by_the_end_of_its_pause() -> None:
    history = (failure("h2"), failure("h3"))
    leased = rules.lease(fresh(failures=2, failed=history), lease())
    resting = rules.fail(
        leased, container="c1", token="t1", failure=failure("h1"), now=NOW, fleet=TWO_ACCOUNTS
    )

    assert resting.state is ChunkState.DELAYED
    assert rules.wake(resting).state is ChunkState.READY


def test_a_failure_that_sets_the_chunk_aside_lets_the_other_attempt_finish_first() -> None:
    both = rules.lease(rules.lease(fresh(2, failures=5), lease()), lease("c2", "t2"))

    failed = rules.fail(both, container="c1", token="t1", failure=failure("h1"), now=NOW)

    assert (failed.state, failed.wanted) == (ChunkState.LEASED, 0)
    back = rules.give_back(failed, container="c2", token="t2")
    assert back.state is ChunkState.QUARANTINED
    assert rules.accept(rules.propose(failed, candidate("r2", "c2")), "r2").state is ChunkState.DONE


def test_five_losses_while_executing_quarantine() -> None:
    leased = rules.lease(fresh(losses=4), lease())
    started = rules.start(leased, container="c1", now=NOW, until=NOW)

    assert rules.give_back(started, container="c1", token="t1", lost=True).state is ChunkState.QUARANTINED


# --- answers


UNDECIDED = [one for one in ChunkState if one not in (ChunkState.DONE, ChunkState.CANCELLED)]


@pytest.mark.parametrize("state", UNDECIDED)
def test_a_late_good_result_is_never_refused(state: ChunkState) -> None:
    done = accepted(fresh(state=state))

    assert (done.state, done.result, done.leases, done.wanted) == (ChunkState.DONE, "r1", (), 0)


@pytest.mark.parametrize(
    "chunk", [fresh(state=ChunkState.DONE, result="r1"), fresh(state=ChunkState.CANCELLED)]
)
def test_a_decided_chunk_takes_no_other_result(chunk: Chunk) -> None:
    with pytest.raises(WrongState):
        rules.propose(chunk, candidate("r2"))
    with pytest.raises(WrongState):
        rules.accept(replace(chunk, candidates=(candidate("r2"),)), "r2")


def test_only_a_candidate_is_accepted_and_each_is_a_candidate_once() -> None:
    with pytest.raises(WrongState):
        rules.accept(fresh(), "r1")
    with pytest.raises(WrongState):
        rules.propose(rules.propose(fresh(2), candidate()), candidate())


def test_a_candidate_ends_the_lease_of_its_container_and_leaves_the_other_replica_wanted() -> None:
    leased = rules.lease(fresh(2), lease())

    proposed = rules.propose(leased, candidate())

    assert (proposed.leases, proposed.state, proposed.wanted) == ((), ChunkState.READY, 1)


def test_the_last_awaited_candidate_makes_the_chunk_validating_until_more_are_asked_for() -> None:
    one = rules.propose(fresh(2), candidate())
    both = rules.propose(one, candidate("r2", "c2"))

    assert (both.state, both.wanted) == (ChunkState.VALIDATING, 0)
    more = rules.ask_more(both, 3)
    assert (more.state, more.wanted, more.replicas) == (ChunkState.READY, 1, 3)
    assert rules.give_up(both).state is ChunkState.QUARANTINED


@pytest.mark.parametrize("replicas", [1, 2, MAX_LISTED + 1])
def test_the_number_of_replicas_only_rises_and_has_a_bound(replicas: int) -> None:
    with pytest.raises(WrongState):
        rules.ask_more(fresh(2), replicas)


def test_nothing_is_given_up_while_an_attempt_is_out() -> None:
    with pytest.raises(WrongState):
        rules.give_up(rules.lease(fresh(), lease()))


# --- beginning anew


def test_requeueing_forgets_the_count_but_cancelled_and_done_stay() -> None:
    quarantined = fresh(state=ChunkState.QUARANTINED, failures=6, failed=(failure(),), losses=2)

    again = rules.requeue(quarantined)

    assert (again.state, again.failures, again.failed, again.losses) == (ChunkState.READY, 0, (), 0)
    assert again.run == quarantined.run
    for state in (ChunkState.DONE, ChunkState.CANCELLED, ChunkState.READY):
        with pytest.raises(WrongState):
            rules.requeue(fresh(state=state))


def test_requeueing_after_a_disagreement_keeps_the_candidates_and_asks_for_one_more() -> None:
    given_up = rules.give_up(rules.propose(rules.propose(fresh(2), candidate()), candidate("r2", "c2")))

    again = rules.requeue(given_up)

    assert (len(again.candidates), again.wanted, again.replicas) == (2, 1, 3)


def test_requeueing_a_chunk_that_can_carry_no_more_candidates_begins_a_new_run() -> None:
    full = tuple(candidate(f"r{n}", f"c{n}") for n in range(MAX_LISTED - 1))
    given_up = fresh(2, state=ChunkState.QUARANTINED, candidates=full)

    again = rules.requeue(given_up)

    assert (again.run, again.candidates, again.state) == (1, (), ChunkState.READY)


@pytest.mark.parametrize("state", [one for one in ChunkState if one is not ChunkState.CANCELLED])
def test_a_rerun_begins_anew_and_an_answer_of_the_old_run_is_forgotten_by_the_chunk(
    state: ChunkState,
) -> None:
    before = fresh(state=state, result="r1" if state is ChunkState.DONE else None, failures=2, losses=1)

    again = rules.rerun(before, 2)

    assert (again.run, again.wanted, again.replicas, again.result) == (1, 2, 2, None)
    assert (again.state, again.candidates, again.failures, again.losses) == (ChunkState.READY, (), 0, 0)


def test_a_cancelled_chunk_is_not_run_again_and_a_decided_one_is_not_cancelled() -> None:
    with pytest.raises(WrongState):
        rules.rerun(rules.cancel(fresh()), 1)
    with pytest.raises(WrongState):
        rules.cancel(accepted(fresh()))


# --- any sequence of events

CONTAINERS = st.sampled_from(["c1", "c2", "c3"])
EVENTS = st.lists(st.tuples(st.sampled_from(sorted(rules.MAY)), CONTAINERS), max_size=80)


def happen(chunk: Chunk, event: str, who: str, step: int) -> Chunk:
    """The event, as a service would let it happen for this container."""
    held = next((one for one in chunk.leases if one.container == who), None)
    token = held.token if held else "none"
    if event in ("lease", "hedge", "canary"):
        return getattr(rules, event)(chunk, lease(who, f"t{step}"))
    if event == "assign":
        return rules.assign(chunk, Holder(container=who, life="l"))
    if event == "start":
        return rules.start(chunk, container=who, now=NOW, until=NOW)
    if event == "give_back":
        return rules.give_back(chunk, container=who, token=token, lost=step % 2 == 0)
    if event == "fail":
        failed = failure(f"host of {who}", f"account of {who}", error=f"e{step}")
        return rules.fail(chunk, container=who, token=token, failure=failed, now=NOW)
    if event == "propose":
        return rules.propose(chunk, candidate(f"r{step}", who))
    if event == "accept":
        return rules.accept(chunk, chunk.candidates[0].result if chunk.candidates else "none")
    if event == "ask_more":
        return rules.ask_more(chunk, chunk.replicas + 1)
    if event == "rerun":
        return rules.rerun(chunk, 1 + step % 3)
    return getattr(rules, event)(chunk)


@given(st.integers(1, 3), EVENTS)
def test_no_sequence_of_events_loses_a_replica_or_changes_an_accepted_result(
    replicas: int, events: list[tuple[str, str]]
) -> None:
    chunk = fresh(replicas)

    for step, (event, who) in enumerate(events):
        before = chunk
        try:
            chunk = happen(chunk, event, who, step)
        except WrongState:
            continue

        _assert_history_kept(before, chunk)
        _assert_consistent(chunk)


def _assert_history_kept(before: Chunk, after: Chunk) -> None:
    assert after.run in (before.run, before.run + 1)
    if after.run == before.run:
        assert before.result is None or after.result == before.result
        assert after.candidates[: len(before.candidates)] == before.candidates
        assert after.replicas >= before.replicas


def _assert_consistent(chunk: Chunk) -> None:
    out = len(chunk.leases) + len(chunk.candidates)
    assert (chunk.result is not None) == (chunk.state is ChunkState.DONE)
    assert chunk.result is None or chunk.result in {one.result for one in chunk.candidates}
    assert len({one.container for one in chunk.leases}) == len(chunk.leases)
    assert all(one.canary for one in chunk.leases) or chunk.state in OPEN_STATES
    assert chunk.assigned is None or chunk.state is ChunkState.READY
    assert (chunk.not_before is not None) == (chunk.state is ChunkState.DELAYED)
    assert max(map(len, (chunk.leases, chunk.candidates, chunk.failed))) <= MAX_LISTED
    # One hedge more, and those that came late, may be above what is wanted; never fewer but on the way to quarantine.
    if chunk.state in (ChunkState.READY, ChunkState.DELAYED):
        assert chunk.wanted == chunk.replicas - out > 0
    else:
        assert chunk.wanted == 0
    if chunk.state is ChunkState.LEASED:
        assert chunk.leases
    if chunk.state in (ChunkState.VALIDATING, ChunkState.QUARANTINED, ChunkState.CANCELLED):
        assert not chunk.leases
    if chunk.state is ChunkState.VALIDATING:
        assert len(chunk.candidates) >= chunk.replicas
