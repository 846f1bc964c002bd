"""Calculations: taken in, handed over to the calculators' tasks, and read with what has become of them."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from source_server.domain.account import Account, Role
from source_server.domain.calculation import (
    ANY,
    CHECKED,
    Asked,
    Calculation,
    Calculators,
    Environment,
    Reading,
    matching,
    parse,
)
from source_server.domain.refusal import BadInput, Conflict, NotFound, TooMany, Unavailable
from source_server.services.calculators.read_calculations import ReadCalculations
from source_server.services.each import alone
from source_server.services.tasks.append import Append
from source_server.stores.calculations import KEPT, first_id, id_before
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

PAGE = 50  #: calculations in one answer
MOST_A_MINUTE = 3000  #: that one account may ask for
MOST_WAITING = 10_000  #: in a task, before more are refused for now
OVERLAP = timedelta(seconds=10)  #: web processes' clocks may differ by less: nothing new is missed
SENT_WITHIN = timedelta(seconds=10)  #: after that, housekeeping hands a calculation over
FRESH_S = 2.0  #: how old what is enabled may be


@dataclass(frozen=True, kw_only=True)
class Wished:
    """What somebody wants: the text, and where. `check`: by several environments that have to agree."""

    text: str
    key: str | None = None
    os: str | None = None
    language: str | None = None
    check: bool = False


class Calculate:
    """Everybody sees their own calculations, an admin all."""

    def __init__(
        self, stores: Stores, append: Append, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores, self._append, self._monotonic = stores, append, monotonic
        self._read = ReadCalculations(stores)
        self._lock = threading.Lock()
        self._setting: Calculators | None = None
        self._until = float("-inf")

    def enabled(self) -> Calculators:
        """What is enabled, as of two seconds ago; raises NotFound."""
        with self._lock:
            if self._monotonic() > self._until:
                self._setting = self._stores.calculations.setting()
                self._until = self._monotonic() + FRESH_S
            if self._setting is None:
                raise NotFound(
                    "No calculators are enabled here; the operator does it with `dockercomp-server calculator enable`."
                )
            return self._setting

    def ask(self, account: Account, wish: Wished) -> tuple[Reading, bool]:
        """Take a calculation in, and whether it is new; raises BadInput, TooMany or Unavailable, and stores nothing."""
        calculation = parse(wish.text)
        setting = self.enabled()
        os, language = (None if one in ANY else one for one in (wish.os, wish.language))
        found = matching(setting.environments, os, language)
        task, chosen = _where(setting, found, wish, named=os is not None or language is not None)
        if wish.key is not None and (known := self._stores.calculations.by_key(account.id, wish.key)):
            return self._again(known, wish), False
        asked = self._asked(account, wish, calculation, task, chosen, os, language)
        self._require_room(account, task)
        try:
            self._stores.calculations.add(asked)
        except AlreadyThere:
            known = self._stores.calculations.by_key(account.id, asked.key)
            if known is None:
                raise Unavailable("The same calculation ended at this moment; send it again.") from None
            return self._again(known, wish), False
        return self._read.of([self._hand_over(asked)])[0], True

    def page(self, account: Account, *, after: str, open_ids: Sequence[str]) -> list[Reading]:
        """The account's newest behind that id, and those with these ids, newest first."""
        whose = None if account.role is Role.ADMIN else account.id
        start = id_before(after, OVERLAP) if after else ""
        found = {one.id: one for one in self._stores.calculations.page(whose, after=start, limit=PAGE)}
        others = [one for one in open_ids[:PAGE] if one not in found]
        found |= {one.id: one for one in (self._stores.calculations.read(whose, others) if others else [])}
        return self._read.of([found[one] for one in sorted(found, reverse=True)])

    def get(self, account: Account, asked_id: str) -> Reading:
        """One calculation; raises NotFound unless it is the caller's."""
        whose = None if account.role is Role.ADMIN else account.id
        found = self._stores.calculations.read(whose, [asked_id])
        if not found:
            raise NotFound(f"There is no calculation {asked_id} of yours.")
        return self._read.of(found)[0]

    def standing(self) -> dict[str, dict[str, int]]:
        """environment -> verdict -> how often, among the last checked calculations."""
        return self._read.standing(self.enabled())

    def tend(self) -> int:
        """Housekeeping: hand over what a process left behind when it died, forget what is old; how many it was."""
        now = self._stores.clock.now()
        left = self._stores.calculations.unsent(first_id(now - SENT_WITHIN), limit=100)
        for one in left:
            with alone("calculation cannot be handed over", calculation=one.id):
                try:
                    self._hand_over(one)
                except (Conflict, BadInput, NotFound):
                    self._stores.calculations.remove(one.id)
        return len(left) + self._stores.calculations.forget(first_id(now - KEPT), limit=1000)

    def _asked(
        self,
        account: Account,
        wish: Wished,
        calculation: Calculation,
        task: str,
        chosen: Environment | None,
        os: str | None,
        language: str | None,
    ) -> Asked:
        now = self._stores.clock.now()
        return Asked(
            id=f"{first_id(now)}{secrets.token_hex(6)}",
            key=wish.key or secrets.token_hex(16),
            account=account.id,
            at=now,
            text=wish.text.strip(),
            calculation=calculation,
            task=task,
            environment=None if chosen is None else chosen.name,
            os=os,
            language=language,
        )

    def _require_room(self, account: Account, task: str) -> None:
        minute = first_id(self._stores.clock.now() - timedelta(minutes=1))
        if self._stores.calculations.count(account.id, after=minute, at_most=MOST_A_MINUTE) >= MOST_A_MINUTE:
            raise TooMany(f"You asked for {MOST_A_MINUTE} calculations within a minute; wait for one.")
        if self._stores.chunks.ready([task], at_most=MOST_WAITING) >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} calculations wait already; come back later.")

    def _again(self, known: Asked, wish: Wished) -> Reading:
        if known.text != wish.text.strip():
            raise Conflict("This id stands for another calculation already; choose another.")
        if known.n is None:
            known = self._hand_over(known)
        elif not self._stores.calculations.confirm(known):
            raise Unavailable("The database has just lost this calculation; send it again.")
        return self._read.of([known])[0]

    def _hand_over(self, asked: Asked) -> Asked:
        """Make it a row of its task; twice is once. A task that was closed meanwhile has a successor."""
        for last_try in (False, True):
            task = self._stores.tasks.find(asked.task)
            try:
                if task is None:
                    raise Conflict(
                        "The calculators were removed at this moment: ask the operator for others."
                    )
                added = self._append(task, asked.id, [_row(asked)])
            except Conflict:
                moved = None if last_try else self._successor(asked)
                if moved is None:
                    self._stores.calculations.remove(asked.id)
                    raise
                asked = moved
                continue
            self._stores.calculations.handed_over(asked.id, asked.task, added.n)
            return replace(asked, n=added.n)
        raise AssertionError("one of two tries returns or raises")

    def _successor(self, asked: Asked) -> Asked | None:
        """The same in the task that has taken its task's place; None where there is none."""
        setting = self._stores.calculations.setting()
        if setting is None:
            return None
        names = {one.name for one in setting.environments}
        if asked.environment is not None:
            return replace(asked, task=setting.named) if asked.environment in names else None
        task = setting.checked if asked.task.startswith(CHECKED) else setting.anywhere
        return None if task is None or task == asked.task else replace(asked, task=task)


def _where(
    setting: Calculators, found: Sequence[Environment], wish: Wished, *, named: bool
) -> tuple[str, Environment | None]:
    """The task that takes it, and the environment it names, if it names one."""
    if wish.check and setting.checked is None:
        raise BadInput("Answers are not compared here; the operator enables it with --cross-check.")
    if wish.check and named:
        raise BadInput("A checked calculation goes to several environments: choose any system and language.")
    if wish.check and setting.checked is not None:
        return setting.checked, None
    return (setting.named, random.choice(found)) if named else (setting.anywhere, None)


def _row(asked: Asked) -> dict[str, str]:
    one = asked.calculation
    row = {"left": one.left, "operator": one.operator, "right": one.right, "calculation": asked.id}
    return row if asked.environment is None else {**row, "environment": asked.environment}
