"""Keeps the wanted client containers alive: a step that can be called once, and the loop around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client_container.launcher.clients.plan import Plan, config_digest
from client_container.launcher.clients.reconcile import (
    ALIVE,
    STEADY_S,
    Action,
    Create,
    Found,
    Pace,
    Reason,
    Remove,
    Wanted,
    reconcile,
)
from client_container.launcher.errors import EngineAway, EngineError

if TYPE_CHECKING:
    from client_container.launcher.clients.engine import ClientEngine

log = logging.getLogger(__name__)

LOOK_S = 0.5  #: pause between two looks at the engine
AWAY_S = 2.0  #: the same while no engine answers
AT_ONCE = 16  #: containers stopped at the same time


@dataclass
class Keeper:
    """The containers of one launcher instance. `clock` tells monotonic seconds."""

    engine: ClientEngine
    plan: Plan
    count: int
    key: bytes
    clock: Callable[[], float]
    #: Called before a slot's container is made; may raise OSError.
    prepare: Callable[[int], object] = lambda _slot: None
    paces: dict[int, Pace] = field(default_factory=dict)
    found: Sequence[Found] = ()  #: as seen at the last look
    last_words: dict[int, str] = field(default_factory=dict)  #: how a slot's container last failed, by slot

    def step(self) -> bool:
        """Look once and do what is due; True if something was done, so that another look is due now."""
        wanted = Wanted(count=self.count, config=config_digest(self.plan))
        now = self.clock()
        found = self.found = self.engine.find(self.plan.own_labels())
        for one in found:
            self._note_end(one, now)
        held = {slot for slot, pace in self.paces.items() if pace.not_before > now}
        actions = reconcile(wanted, found, held=held)
        self._carry_out(actions)
        return bool(actions)

    def stop(self) -> int:
        """Stop and remove all containers of this instance, in parallel; returns how many."""
        return remove_all(self.engine, self.engine.find(self.plan.own_labels()))

    def failing(self) -> dict[int, str]:
        """How the containers of slots fail that do not stay alive for long, by slot."""
        steady = {
            one.slot for one in self.found if one.state in ALIVE and time.time() - one.created >= STEADY_S
        }
        again = {slot for slot, pace in self.paces.items() if pace.failures > 1} - steady
        return {slot: self.last_words.get(slot, "") for slot in sorted(again) if slot < self.count}

    def _carry_out(self, actions: Sequence[Action]) -> None:
        removals = [action for action in actions if isinstance(action, Remove)]
        for removal in removals:
            if removal.reason is not Reason.ENDED:
                fields = {"container": removal.container.id[:12], "reason": removal.reason.value}
                log.info("client container removed", extra=fields)
        remove_all(self.engine, [removal.container for removal in removals])
        creations = [action for action in actions if isinstance(action, Create)]
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            list(pool.map(self._create, creations))

    def _create(self, action: Create) -> None:
        try:
            self.prepare(action.slot)
            made = self.engine.create(self.plan, action.slot, self.key)
        except EngineAway:
            raise
        except (EngineError, OSError) as error:
            self._slow_down(action.slot, ran_s=0.0)
            self.last_words[action.slot] = str(error)
            log.error("client container not started", extra={"slot": action.slot, "why": str(error)})
        else:
            log.info("client container started", extra={"slot": action.slot, "container": made[:12]})

    def _note_end(self, one: Found, now: float) -> None:
        if one.state not in ("exited", "dead") or one.slot is None:
            return
        ending = self.engine.ending(one.id)
        if ending is None:
            return
        self._slow_down(one.slot, ran_s=ending.ran_s)
        out_of = " for want of memory" if ending.out_of_memory else ""
        self.last_words[one.slot] = f"It ended with exit code {ending.exit_code}{out_of}: {ending.last_line}"
        fields = {
            "slot": one.slot,
            "container": one.id[:12],
            "exit": ending.exit_code,
            "oom": ending.out_of_memory,
            "ran_s": round(ending.ran_s, 1),
            "again_in_s": round(self.paces[one.slot].not_before - now, 1),
            "said": ending.last_line,
        }
        log.warning("client container ended", extra=fields)

    def _slow_down(self, slot: int, *, ran_s: float) -> None:
        self.paces[slot] = self.paces.get(slot, Pace()).after_end(ran_s=ran_s, now=self.clock())


def remove_all(engine: ClientEngine, containers: Sequence[Found]) -> int:
    """Remove containers in parallel: each may take its time to leave. Returns how many."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        list(pool.map(engine.remove, containers))
    return len(containers)


def keep(step: Callable[[], bool], wait: Callable[[float], bool]) -> None:
    """Call `step` for ever, until `wait(seconds)` says to stop. An engine that is away is waited for."""
    away = False
    while True:
        pause = AWAY_S
        try:
            acted = step()
        except EngineAway as error:
            if not away:
                log.warning("engine away", extra={"why": str(error)})
            away = True
        except EngineError as error:
            log.error("step failed", extra={"why": str(error)})
        else:
            if away:
                log.info("engine back")
            away = False
            pause = 0.0 if acted else LOOK_S
        if wait(pause):
            return
