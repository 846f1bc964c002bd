"""Dispatch keeps its promises in every state of small settings, and each broken variant of it is found."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest

from model.cases import SETTINGS, VARIANTS, Broken
from model.explorer import STUCK, Report, explore
from model.protocol import Protocol
from model.setting import Setting, Variant
from source_server.domain.attempt import Verdict


@cache
def checked(setting: Setting) -> Report:
    """All states of the setting."""
    return explore(Protocol(setting))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_no_order_of_events_breaks_a_promise_or_leaves_anything_for_ever_undone(setting: Setting) -> None:
    report = checked(setting)

    print(report)
    assert report.exhausted
    assert not report.violations, str(report)


@pytest.mark.parametrize("broken", VARIANTS, ids=lambda one: f"{one.name} in {one.setting.name}")
def test_a_protocol_that_is_broken_on_purpose_is_found_out(broken: Broken) -> None:
    report = explore(Protocol(broken.setting), until_first=True)

    print(report)
    assert [one.sentence for one in report.violations] == [broken.sentence], str(report)


def test_every_way_to_break_it_is_tried() -> None:
    tried = {name for one in VARIANTS for name, is_set in vars(one.setting.variant).items() if is_set}

    assert tried == {field.name for field in fields(Variant)}


def test_a_variant_that_breaks_nothing_is_the_protocol_itself() -> None:
    for one in VARIANTS:
        sound = replace(one.setting, variant=Variant())

        assert sound in SETTINGS or not checked(sound).violations


def test_the_settings_together_come_to_every_verdict_and_every_kind_of_step() -> None:
    happened = {step for setting in SETTINGS for step in checked(setting).happened}

    verdicts = {found[1] for step in happened if (found := re.fullmatch(r"\w+\.\d+\.\w+ is (\w+)", step))}
    assert verdicts == {one.value for one in Verdict} - {Verdict.NEW.value}
    for kind in (
        "the answer is lost",
        "expires",
        "dies while computing",
        "is purged",
        "comes back",
        "of an ended life",
        "is dealt to",
        "late duplicate",
        "FAILOVER",
        "deposed primary",
        "is requeued",
        "the pause ends",
        "begins anew",
        "is swept",
    ):
        assert any(kind in step for step in happened), kind


# --- the explorer itself


@dataclass(frozen=True)
class Walk:
    """Numbers from 0 to 9: one up, or two up and never back; rest is at `rest`."""

    rest: int = 9
    wrong: int = -1
    initial: int = 0

    def steps(self, state: int) -> list[tuple[str, int]]:
        return [(f"+{more}", state + more) for more in (1, 2) if state + more < 10]

    def wrongs(self, state: int) -> list[str]:
        return ["wrong"] if state == self.wrong else []

    def is_at_rest(self, state: int) -> bool:
        return state == self.rest


def test_the_explorer_sees_every_state_and_finds_nothing_where_nothing_is() -> None:
    report = explore(Walk())

    assert (report.states, report.exhausted, report.violations) == (10, True, ())


def test_the_explorer_shows_the_shortest_way_to_a_violation() -> None:
    (violation,) = explore(Walk(wrong=5)).violations

    assert violation.sentence == "wrong" and len(violation.trace) == 3
    assert str(violation).splitlines()[1] == "   1. " + violation.trace[0]


def test_the_explorer_finds_a_state_from_which_there_is_no_way_to_rest() -> None:
    (violation,) = explore(Walk(rest=8)).violations

    assert (violation.sentence, sum(map(int, violation.trace))) == (STUCK, 9)


def test_the_explorer_says_when_it_has_not_seen_all() -> None:
    report = explore(Walk(rest=8), most=5)

    assert not report.exhausted and not report.violations
