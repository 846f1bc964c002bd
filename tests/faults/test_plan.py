"""What is planned to go wrong: everything, by the seed alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from faults.plan import KINDS, LONG, ROUND_S, make_plan, survivors
from faults.proxy import mischief
from faults.roster import LEAST_CLIENTS, make_roster

ROSTER = make_roster(LEAST_CLIENTS)


def test_the_same_seed_plans_the_same_faults_and_another_seed_others() -> None:
    once, again, other = (make_plan(seed, 600, ROSTER) for seed in (7, 7, 8))

    assert once == again != other


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_every_kind_of_fault_happens_in_every_round(first: int) -> None:
    for seed in range(first, first + 100):
        plan = make_plan(seed, 2 * ROUND_S, ROSTER)

        for begin in (0.0, ROUND_S):
            kinds = {fault.kind for fault in plan if begin <= fault.at_s < begin + ROUND_S}
            assert kinds == set(KINDS), f"seed {seed}"


def test_no_fault_of_a_client_undoes_another_one() -> None:
    for seed in range(100):
        plan = [one for one in make_plan(seed, ROUND_S, ROSTER) if "client" in one.kind]

        for number in range(LEAST_CLIENTS):
            mine = [one for one in plan if one.target == number]
            for earlier, later in pairwise(mine):
                assert earlier.at_s + earlier.lasts_s < later.at_s, f"seed {seed}"


def test_a_phase_leaves_honest_clients_at_work_that_no_pause_stops() -> None:
    for seed in range(100):
        plan = make_plan(seed, ROUND_S, ROSTER)
        (paused,) = [one.target for one in plan if one.kind == LONG[0].name]

        for phase in (one for one in plan if one.kind.startswith("only")):
            left = survivors(phase.kind, phase.target, ROSTER)
            assert len(left) >= 2
            assert all(not one.liar and one.number != paused for one in left), f"seed {seed}"


def test_requests_meet_every_mischief_and_mostly_none() -> None:
    drawn = [mischief(1, client, n) for client in range(20) for n in range(500)]

    names = [name for one in drawn for name in one.names()]
    assert set(names) == {
        "request delayed",
        "server switched",
        "request cut",
        "request doubled",
        "request repeated late",
        "reply dropped",
        "reply cut",
    }
    assert 0.1 < len(names) / len(drawn) < 0.4
    assert drawn[:500] == [mischief(1, 0, n) for n in range(500)]


def test_twenty_clients_belong_to_six_accounts_and_most_share_a_host() -> None:
    assert len({one.account for one in ROSTER}) == 6
    assert all(len(survivors("only one host", one.host, ROSTER)) >= 2 for one in ROSTER)
    assert {one.account for one in ROSTER if one.liar} == {"liars"}
