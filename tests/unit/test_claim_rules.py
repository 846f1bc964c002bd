"""The pure rules behind a claim: how much, what it costs, who straggles, what tests a host, whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import click
import pytest

from client_container.machine import cpu_family, machine_labels
from dockercomp.cli.requiring import requires
from source_server.domain.canaries import can_test
from source_server.domain.chunk import Candidate, Chunk, ChunkState, Lease
from source_server.domain.eligibility import Taker
from source_server.domain.pace import (
    Pace,
    charge_s,
    hedges,
    pace_of,
    room,
    straggles,
    straggles_after,
)
from source_server.domain.share import Claim, turns
from source_server.services.dispatch.hints import EMPTY_S, SWEEP_S, Hints

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
CHUNK = Chunk(id="t.0", project="p", task="t", n=0, r=0.5, rev=1, upload="u")


def lease(**other: Any) -> Lease:
    made = Lease(
        token="k", container="c", life="l", host="h", account="a", since=NOW, until=NOW + timedelta(hours=1)
    )
    return replace(made, **other)


# --- paces


def test_a_pace_is_the_mean_and_the_95th_percentile_of_the_durations() -> None:
    pace = pace_of([float(n) for n in range(1, 101)], ended=300)

    assert pace == Pace(mean_s=50.5, p95_s=95.0, ended=300)
    assert pace_of([7.0], ended=1) == Pace(mean_s=7.0, p95_s=7.0, ended=1)
    assert pace_of([], ended=0) is None


@pytest.mark.parametrize(
    ("mean_s", "timeout_s", "expected"),
    [(None, 60.0, 10), (None, 86400.0, 0), (None, 1.0, 600), (30.0, 60.0, 20), (0.0, 60.0, 600_000)],
)
def test_a_claim_has_room_for_ten_minutes_of_work(
    mean_s: float | None, timeout_s: float, expected: int
) -> None:
    pace = None if mean_s is None else Pace(mean_s=mean_s, p95_s=mean_s, ended=1)

    assert room(pace, timeout_s=timeout_s, left_s=600.0) == expected


def test_a_chunk_costs_the_mean_and_little_while_nothing_is_known_of_its_task() -> None:
    assert charge_s(Pace(mean_s=33.0, p95_s=50.0, ended=5), timeout_s=60.0) == 33.0
    assert charge_s(None, timeout_s=86400.0) == 10.0
    assert charge_s(None, timeout_s=2.0) == 2.0


def test_a_straggler_took_twice_the_95th_percentile_and_a_minute_at_least() -> None:
    slow, quick = Pace(mean_s=90.0, p95_s=100.0, ended=10), Pace(mean_s=1.0, p95_s=2.0, ended=500)

    assert straggles_after(slow, timeout_s=3600.0) == 200.0
    assert straggles_after(quick, timeout_s=3600.0) == 60.0


def test_half_the_timeout_stands_in_until_ten_attempts_have_ended() -> None:
    nine = Pace(mean_s=90.0, p95_s=100.0, ended=9)

    assert straggles_after(nine, timeout_s=3600.0) == 3600.0
    assert straggles_after(None, timeout_s=3600.0) == 3600.0


def test_only_a_started_attempt_straggles() -> None:
    waiting = replace(CHUNK, leases=(lease(),))
    old, young = (
        replace(CHUNK, leases=(lease(started=NOW - timedelta(seconds=seconds)),)) for seconds in (61, 59)
    )

    late = [straggles(one, now=NOW, after_s=60.0) for one in (waiting, old, young)]

    assert late == [False, True, False]


def test_hedges_are_a_tenth_of_the_live_containers_and_at_least_one() -> None:
    assert [hedges(live) for live in (0, 1, 19, 20, 1000)] == [1, 1, 1, 2, 100]


# --- turns


def test_the_project_that_used_least_for_its_share_goes_first_and_priority_before_that() -> None:
    claims = [
        Claim(project="greedy", usage=100.0, as_of=NOW),
        Claim(project="large", usage=150.0, as_of=NOW, share=3.0),
        Claim(project="urgent", usage=1000.0, as_of=NOW, priority=1),
    ]

    assert turns(claims, NOW) == ["urgent", "large", "greedy"]


def test_a_newcomer_is_served_before_the_one_whose_figure_it_takes_over_whatever_its_name() -> None:
    claims = [
        Claim(project="a", usage=100.0, as_of=NOW),
        Claim(project="b", usage=50.0, as_of=NOW),
        Claim(project="z"),
    ]

    assert turns(claims, NOW) == ["z", "b", "a"]


# --- canaries


def candidate(**other: Any) -> Candidate:
    made = Candidate(result="r1", account="a", host="h", container="c", digest="d")
    return replace(made, **other)


@pytest.mark.parametrize(
    ("taker", "tests"),
    [
        ({"account": "b", "host": "h"}, True),
        ({"account": "a", "host": "other"}, True),
        ({"account": "a", "host": "h"}, False),
        ({"account": "e", "host": "he"}, False),
        ({"account": "d", "host": "hd"}, False),
        ({"account": "b", "host": "h", "platform": "arm64"}, False),
    ],
)
def test_a_settled_chunk_tests_who_neither_gave_nor_gives_one_of_its_answers(
    taker: dict[str, str], tests: bool
) -> None:
    settled = replace(
        CHUNK,
        state=ChunkState.DONE,
        result="r1",
        candidates=(candidate(), candidate(result="r2", account="d", host="hd")),
        leases=(lease(account="e", host="he", canary=True),),
    )

    assert can_test(settled, Taker(container="new", **taker)) is tests


# --- hints


def test_a_hint_is_believed_for_two_seconds() -> None:
    now = [0.0]
    hints = Hints(lambda: now[0])
    hints.note("empty")

    now[0] = EMPTY_S - 0.01
    early = hints.holds("empty")
    now[0] = EMPTY_S + 0.01

    assert (early, hints.holds("empty"), hints.holds("other")) == (True, False, False)


def test_a_search_in_steps_goes_on_where_it_was_and_ends_with_a_hint() -> None:
    now = [0.0]
    hints = Hints(lambda: now[0])

    first = hints.sweep_from("who")
    hints.swept("who", 0.4)
    resting = hints.holds("who")
    now[0] += SWEEP_S
    second, rested = hints.sweep_from("who"), not hints.holds("who")
    hints.swept("who", 1.0)
    now[0] += SWEEP_S

    assert (first, resting, second, rested) == (0.0, True, 0.4, True)
    assert hints.holds("who") and hints.sweep_from("who") == 0.0


# --- labels


def test_requirements_on_the_command_line_are_values_choices_and_bounds() -> None:
    asked = requires(["arch=x86_64", "os = linux|freebsd", "memory_mb>=4096", "cpus=2", "expr=a>=b"])

    assert asked == {
        "arch": "x86_64",
        "os": ["linux", "freebsd"],
        "memory_mb": {"at_least": 4096},
        "cpus": 2,
        "expr": "a>=b",
    }


@pytest.mark.parametrize("text", ["arch", "=x", "arch=", "memory_mb>=much", "memory_mb>4", " = ", "a|b=c"])
def test_a_requirement_that_cannot_be_read_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"must (be NAME=VALUE|have a number)"):
        requires([text])


def test_a_requirement_named_twice_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="only once"):
        requires(["arch=x86_64", "arch=arm64"])


def test_a_client_says_what_machine_it_runs_on() -> None:
    labels = machine_labels()

    assert labels["os"] == "linux" and labels["arch"]


@pytest.mark.parametrize(
    ("info", "family"),
    [
        (
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n\nvendor_id : Other\n",
            "AuthenticAMD-26",
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "0x41-0xd0c"),
        ("cpu family\t: 6\n", None),
        ("", None),
    ],
)
def test_the_family_of_the_processor_is_read_where_the_system_says_it(info: str, family: str | None) -> None:
    assert cpu_family(info) == family
