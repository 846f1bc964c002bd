"""A task's end and its reactions keep their promises in every state of small settings; each broken variant is found."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import pytest

from model.explorer import Report, explore
from model.reacting import Ending
from model.reacting_cases import BROKEN, SETTINGS, Broken
from model.reacting_setting import Reacting, Wrong


@cache
def checked(setting: Reacting) -> Report:
    """All states of the setting."""
    return explore(Ending(setting))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_in_every_order_a_task_is_decided_once_and_each_reaction_has_its_turn_and_an_end(
    setting: Reacting,
) -> None:
    report = checked(setting)

    print(report)
    assert report.exhausted
    assert not report.violations, str(report)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: f"{one.name} in {one.setting.name}")
def test_a_task_s_end_that_is_broken_on_purpose_is_found_out(broken: Broken) -> None:
    report = explore(Ending(broken.setting), until_first=True)

    print(report)
    assert [one.sentence for one in report.violations] == [broken.sentence], str(report)


def test_every_way_to_break_a_task_s_end_is_tried() -> None:
    tried = {name for one in BROKEN for name, is_set in vars(one.setting.wrong).items() if is_set}

    assert tried == {field.name for field in fields(Wrong)}


def test_the_settings_together_come_to_every_kind_of_step() -> None:
    happened = {step for setting in SETTINGS for step in checked(setting).happened}

    for kind in (
        "t: decide, matched",
        "t: decide, no match",
        "t--success-0: decide, matched",
        "the chunk of t--failure-0 is answered",
        "the chunk of t--success-0 is set aside",
        "the chunk of t--after-1 is answered",
        "a good answer comes late",
        "t: make the chunk, no match",
        "t: make the task, no match",
        "t: end the reactions, no match",
        "t: cancel the reactions, matched",
        "t: begin a round, matched",
        "t: end it early, matched",
        "t--success-0: close its gate, matched",
        "t--success-0: cancel the chunk, matched",
        "who was to make the task of t dies",
        "FAILOVER: what no majority has is gone",
    ):
        assert kind in happened, kind
