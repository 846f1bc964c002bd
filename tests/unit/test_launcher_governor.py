"""When jobs run, rest and are given back: every condition of the policy, with the clock handed in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client_container.launcher.policy.governor import (
    GIVE_BACK_S,
    SETTLE_S,
    Governor,
    Pause,
    Readings,
    Standing,
    Word,
    within,
)
from client_container.launcher.policy.pause_file import read_pause, write_pause
from client_container.launcher.policy.policy import Policy
from client_container.launcher.policy.text import read_hours_line

SUNDAY_NOON = datetime(2026, 11, 22, 12, 0)
CALM = Readings(local=SUNDAY_NOON)


class Machine:
    """A governor, the time, and what the machine says now."""

    def __init__(self, policy: Policy, **readings: Any) -> None:
        self.governor, self.policy, self.now = Governor(), policy, 1000.0
        self.readings, self.pause = replace(CALM, **readings), None
        self.step()

    pause: Pause | None

    def step(self, **readings: Any) -> Standing:
        self.readings = replace(self.readings, **readings)
        self.standing = self.governor.step(self.now, self.readings, self.policy, self.pause)
        return self.standing

    def later(self, seconds: float, **readings: Any) -> Word:
        """The word after so many seconds in which the machine said this all the time."""
        ends = self.now + seconds
        while True:
            self.step(**readings)
            if self.now >= ends:
                return self.standing.word
            passed = min(5.0, ends - self.now)
            self.now += passed
            self.readings = replace(self.readings, local=self.readings.local + timedelta(seconds=passed))


BAD = [
    (Policy(), {"on_battery": True}, "The machine runs on battery."),
    (Policy(), {"metered": True}, "The network is metered."),
    (Policy(idle_only=True), {"in_use": "a terminal"}, "The machine is in use (a terminal)."),
    (Policy(hottest=80), {"hottest": 81.0}, "The machine is hot (81 of at most 80 degrees)."),
]


@pytest.mark.parametrize(("policy", "bad", "why"), BAD, ids=lambda value: str(value)[:30])
def test_a_spike_stops_nothing_and_a_lasting_condition_does(
    policy: Policy, bad: dict[str, Any], why: str
) -> None:
    machine = Machine(policy)
    good = dict.fromkeys(bad)

    assert machine.later(SETTLE_S - 1, **bad) is Word.RUN
    assert machine.later(5, **good) is Word.RUN
    assert machine.later(SETTLE_S - 1, **bad) is Word.RUN
    assert machine.later(1, **bad) is Word.FREEZE
    assert machine.standing.why == why


@pytest.mark.parametrize(("policy", "bad", "why"), BAD, ids=lambda value: str(value)[:30])
def test_jobs_go_on_only_after_the_condition_is_met_again_for_a_minute(
    policy: Policy, bad: dict[str, Any], why: str
) -> None:
    machine = Machine(policy, **bad)
    good = dict.fromkeys(bad)

    assert machine.standing == Standing(word=Word.FREEZE, why=why, since=1000.0)
    assert machine.later(SETTLE_S - 1, **good) is Word.FREEZE
    assert machine.later(1, **bad) is Word.FREEZE
    assert machine.later(SETTLE_S - 1, **good) is Word.FREEZE
    assert machine.later(1, **good) is Word.RUN
    assert machine.standing.why == ""


@pytest.mark.parametrize(("policy", "bad", "_why"), BAD, ids=lambda value: str(value)[:30])
def test_what_the_volunteer_allows_or_the_machine_does_not_say_stops_nothing(
    policy: Policy, bad: dict[str, Any], _why: str
) -> None:
    generous = replace(policy, on_battery=True, metered=True, idle_only=False, hottest=None)

    assert Machine(generous, **bad).later(2 * SETTLE_S) is Word.RUN
    assert Machine(policy, **dict.fromkeys(bad)).later(2 * SETTLE_S) is Word.RUN


def test_frozen_for_ten_minutes_jobs_are_given_back() -> None:
    machine = Machine(Policy(), on_battery=True)

    assert machine.later(GIVE_BACK_S - 1) is Word.FREEZE
    assert machine.later(1) is Word.GIVE_BACK
    assert machine.later(3600) is Word.GIVE_BACK
    assert machine.later(SETTLE_S, on_battery=False) is Word.RUN
    assert machine.later(SETTLE_S, on_battery=True) is Word.FREEZE


def test_another_reason_meanwhile_neither_lets_jobs_run_nor_starts_the_ten_minutes_anew() -> None:
    machine = Machine(Policy(), on_battery=True)
    machine.later(GIVE_BACK_S - 60)

    assert machine.later(30, on_battery=False, metered=True) is Word.FREEZE
    assert machine.standing.why == "The network is metered."
    assert machine.later(30) is Word.GIVE_BACK


def test_a_machine_that_rests_has_to_cool_well_below_the_limit() -> None:
    machine = Machine(Policy(hottest=80), hottest=85.0)

    assert machine.later(2 * SETTLE_S, hottest=78.0) is Word.FREEZE
    assert machine.later(SETTLE_S, hottest=74.9) is Word.RUN
    assert machine.later(2 * SETTLE_S, hottest=79.9) is Word.RUN


def test_a_pause_acts_at_once_and_so_does_its_end() -> None:
    machine = Machine(Policy())

    machine.pause = Pause()
    assert machine.step() == Standing(word=Word.FREEZE, why="You paused it.", since=1000.0)
    machine.pause = None
    assert machine.step().word is Word.RUN


def test_a_pause_with_an_end_ends_by_itself() -> None:
    machine = Machine(Policy())
    machine.pause = Pause(until=SUNDAY_NOON + timedelta(minutes=5))

    assert machine.later(299) is Word.FREEZE
    assert machine.standing.why == "You paused it until 12:05."
    assert machine.later(1) is Word.RUN


def test_the_end_of_a_pause_does_not_override_the_other_conditions() -> None:
    machine = Machine(Policy(), on_battery=True)
    machine.pause = Pause()
    machine.later(SETTLE_S)

    machine.pause = None

    assert machine.step().why == "The machine runs on battery."


def test_the_days_transfer_stops_at_once_and_midnight_lets_go_on() -> None:
    machine = Machine(Policy(transfer_a_day=10**9), transferred=10**9 - 1)
    assert machine.standing.word is Word.RUN

    assert machine.step(transferred=10**9).word is Word.FREEZE
    assert machine.standing.why.startswith("Today's transfer of 1.0 GB is used up")
    assert machine.step(transferred=0).word is Word.RUN


def test_hours_begin_and_end_on_the_minute() -> None:
    machine = Machine(Policy(hours=read_hours_line("sun 12:30-13:00")))

    assert machine.standing.why == "Outside the hours of your policy (sun 12:30-13:00)."
    assert machine.later(30 * 60 - 1) is Word.GIVE_BACK
    assert machine.later(1) is Word.RUN
    assert machine.later(30 * 60 - 1) is Word.RUN
    assert machine.later(1) is Word.FREEZE


@pytest.mark.parametrize(
    ("hours", "moment", "inside"),
    [
        ("always", "mon 03:00", True),
        ("never", "mon 03:00", False),
        ("mon 18:00-24:00", "mon 17:59", False),
        ("mon 18:00-24:00", "mon 18:00", True),
        ("mon 18:00-24:00", "mon 23:59", True),
        ("mon 18:00-24:00", "tue 00:00", False),
        ("mon 18:00-23:00", "tue 05:00", False),
        ("mon 22:00-06:00", "tue 05:59", True),
        ("mon 22:00-06:00", "tue 06:00", False),
        ("mon 22:00-06:00", "mon 05:00", False),
        ("sun 22:00-06:00", "mon 05:00", True),
        ("mon always", "mon 00:00", True),
        ("mon always", "tue 00:00", False),
        ("mon 01:00-02:00 03:00-04:00", "mon 02:30", False),
        ("mon 01:00-02:00 03:00-04:00", "mon 03:30", True),
    ],
)
def test_the_hours_of_a_week(hours: str, moment: str, inside: bool) -> None:
    day, clock = moment.split()
    monday = datetime(2026, 11, 23)
    hour, minute = map(int, clock.split(":"))
    number = ("mon", "tue", "wed", "thu", "fri", "sat", "sun").index(day)
    local = monday + timedelta(days=number, hours=hour, minutes=minute)

    assert within(Policy(hours=read_hours_line(hours)), local) is inside


# --- a pause outlives the launcher


@pytest.mark.parametrize("pause", [Pause(), Pause(until=SUNDAY_NOON), None])
def test_a_pause_is_kept_as_it_is(tmp_path: Path, pause: Pause | None) -> None:
    write_pause(tmp_path / "pause.json", Pause())
    write_pause(tmp_path / "pause.json", pause)

    assert read_pause(tmp_path / "pause.json") == pause


@pytest.mark.parametrize("text", ["", "{}", '{"until": "noon"}', "[]"])
def test_a_torn_pause_is_a_pause(tmp_path: Path, text: str) -> None:
    (tmp_path / "pause.json").write_text(text)

    assert read_pause(tmp_path / "pause.json") == Pause()
