"""Which client containers are said to fail: those that do not stay alive, and no others."""

from __future__ import annotations

import time
from typing import Any

from client_container.launcher.clients.keeper import Keeper
from client_container.launcher.clients.plan import Plan
from client_container.launcher.clients.reconcile import STEADY_S, Found, Pace

PLAN = Plan(instance="default", host_id="h", server="http://192.0.2.1", key_digest="k", image="sha256:1")


def keeper(**changes: Any) -> Keeper:
    made = Keeper(None, PLAN, 2, b"", time.monotonic)  # type: ignore[arg-type]  # no engine is asked here
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def alive(slot: int, *, for_s: float) -> Found:
    return Found(id=f"c{slot}", slot=slot, config="", state="running", created=time.time() - for_s)


def test_a_container_that_dies_again_and_again_is_said_with_its_last_words() -> None:
    failing = keeper(paces={1: Pace(failures=3)}, last_words={1: "It ended with exit code 1: no such module"})

    assert failing.failing() == {1: "It ended with exit code 1: no such module"}


def test_one_death_is_made_good_without_a_word() -> None:
    assert keeper(paces={1: Pace(failures=1)}, last_words={1: "It ended."}).failing() == {}


def test_a_container_that_stays_alive_does_not_fail_any_more() -> None:
    paces = {1: Pace(failures=3)}

    assert keeper(paces=paces, found=[alive(1, for_s=STEADY_S / 2)]).failing() == {1: ""}
    assert keeper(paces=paces, found=[alive(1, for_s=STEADY_S + 5)]).failing() == {}


def test_a_slot_that_is_not_wanted_any_more_does_not_fail() -> None:
    assert keeper(paces={7: Pace(failures=3)}).failing() == {}
