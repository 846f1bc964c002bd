"""The operator enables calculators: a project, and open-ended tasks whose job has each of them as a variant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from source_server.domain.account import Account, Role
from source_server.domain.calculation import CHECKED, PROJECT, Calculators, Environment
from source_server.domain.job import Job, ResultKind, ResultType, Variant
from source_server.domain.refusal import BadInput, Conflict
from source_server.domain.validation import Comparison, Distinct, Validation
from source_server.domain.wish import Wish
from source_server.services.accounts.people import People
from source_server.services.accounts.projects import Policy, Projects
from source_server.services.tasks.append import Append
from source_server.services.tasks.tasks import Tasks
from source_server.stores.database import Stores

OWNER = PROJECT
TIMEOUT_S = 30.0
TOLERANCE = 1e-9  #: as a share of the larger answer: within it, answers agree
MOST_TRIES = 3  #: times the quorum that may be asked before a calculation is set aside


class EnableCalculators:
    """Every step can be repeated: an enabling that broke off is done again by the same command."""

    def __init__(self, stores: Stores, tasks: Tasks, append: Append) -> None:
        self._stores, self._tasks, self._append = stores, tasks, append

    def __call__(self, environments: Sequence[Environment], quorum: int | None) -> Calculators:
        """Enable these in the place of what is enabled; the same again changes nothing. Raises BadInput or Conflict."""
        _require_sound(environments, quorum)
        there = self._stores.calculations.setting()
        made = _setting(environments, quorum, 0 if there is None else there.generation + 1)
        if there is not None and _same(there, made):
            made = there
        owner = self._owner()
        Projects(self._stores).add(owner, PROJECT, Policy())
        for task, wish in _wishes(made):
            self._tasks.add(owner, PROJECT, wish)
            self._tasks.start(owner, task)
        if made is not there:
            before = None if there is None else there.generation
            if not self._stores.calculations.enable(made, generation=before):
                raise Conflict("Somebody else enabled calculators at this moment; say it again.")
        if there is not None and made is not there:
            self._close(there)
        return made

    def disable(self) -> bool:
        """Take no more calculations; those that wait are still computed. False when nothing is enabled."""
        there = self._stores.calculations.setting()
        gone = self._stores.calculations.disable()
        if there is not None:
            self._close(there)
        return gone

    def _owner(self) -> Account:
        found = self._stores.accounts.find_by_name(OWNER)
        if found is None:
            People(self._stores).add(OWNER, Role.SCIENTIST)  # nobody learns its key
            found = self._stores.accounts.find_by_name(OWNER)
        assert found is not None
        return found

    def _close(self, old: Calculators) -> None:
        ids = [one for one in (old.anywhere, old.named, old.checked) if one is not None]
        for task in self._stores.tasks.read(ids).values():
            self._append.close(task)


def _require_sound(environments: Sequence[Environment], quorum: int | None) -> None:
    if not environments:
        raise BadInput("There is no calculator to enable.")
    if len({one.name for one in environments}) != len(environments):
        raise BadInput("Two calculators have the same name.")
    if quorum is not None and not 2 <= quorum <= len(environments):
        raise BadInput(f"Of {len(environments)} calculators, 2 to {len(environments)} can be compared.")


def _setting(environments: Sequence[Environment], quorum: int | None, generation: int) -> Calculators:
    ordered = tuple(sorted(environments, key=lambda one: one.name))
    said = json.dumps([[asdict(one) for one in ordered], quorum, generation], sort_keys=True)
    mark = hashlib.sha256(said.encode()).hexdigest()[:12]
    return Calculators(
        environments=ordered,
        generation=generation,
        anywhere=f"calculations-any-{mark}",
        named=f"calculations-named-{mark}",
        checked=None if quorum is None else f"{CHECKED}{mark}",
        quorum=quorum,
    )


def _same(one: Calculators, other: Calculators) -> bool:
    ids = {"generation": 0, "anywhere": "", "named": "", "checked": None}
    return replace(one, **ids) == replace(other, **ids)  # type: ignore[arg-type]


def _wishes(setting: Calculators) -> list[tuple[str, Wish]]:
    job = Job(
        action=(),
        own_command=True,
        timeout_s=TIMEOUT_S,
        result=ResultType(kind=ResultKind.NUMBER),
        variants=tuple(_variant(one) for one in setting.environments),
    )
    wishes = [
        _wish(setting.anywhere, "Calculations, anywhere", job, Validation()),
        _wish(
            setting.named,
            "Calculations, in one place",
            replace(job, variant_field="environment"),
            Validation(),
        ),
    ]
    if setting.checked is not None and setting.quorum is not None:
        wishes.append(_wish(setting.checked, "Calculations, compared", job, _rule(setting.quorum)))
    return [(str(one.id), one) for one in wishes]


def _wish(task: str, name: str, job: Job, rule: Validation) -> Wish:
    return Wish(id=task, digest=task, name=name, job=job, open_ended=True, validation=rule, notify=())


def _rule(quorum: int) -> Validation:
    return Validation(
        quorum=quorum,
        replicas=quorum,
        most=min(16, MOST_TRIES * quorum),
        distinct=Distinct.VARIANT,
        comparison=Comparison.JSON,
        relative=TOLERANCE,
    )


def _variant(one: Environment) -> Variant:
    return Variant(
        name=one.name,
        image=one.image,
        action=(*one.action, "{left}", "{operator}", "{right}"),
        labels={
            "os": one.os,
            "release": one.release,
            "language": one.language,
            "version": one.version,
        },
    )
