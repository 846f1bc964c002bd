"""Which faults happen when, to whom: all of it follows from the seed. Times are seconds since the faults began."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from faults.roster import BEAT_S, HOUSEKEEPERS, SERVERS, Member
from faults.workload import TIMEOUT_S

ROUND_S = 120.0  #: each round of this length has every kind at least once
PURGED_S = (4.0 * BEAT_S, 8.0 * BEAT_S)  #: pauses longer than three beats
LEASE_S = TIMEOUT_S + 60.0 + BEAT_S
EXPIRED_S = (LEASE_S + 2.0, LEASE_S + 8.0)  #: pauses longer than a lease
BRIEF_S = (0.5, 4.0)
RECOVERY_S = 10.0  #: between two kills of a primary
EXTRAS = 21  #: faults of a round beyond one of each kind


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and is put right after a while."""

    at_s: float
    kind: str
    target: int  #: number of the client, server, housekeeper or host; of any client of an account
    lasts_s: float
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    name: str
    targets: str  #: what it befalls: "client", "server", "housekeeper", "primary", "host"
    lasts_s: tuple[float, float]
    window_s: tuple[float, float] = (5.0, 105.0)  #: when in a round it begins
    least: int = 1  #: times in a round
    weight: int = 0  #: among the extras
    variants: Sequence[str] = ("",)
    rest_s: float = 1.0  #: before the next fault of the same target


#: Pauses longer than a lease begin with the round. Failing hosts come early enough for their chunks' delays to pass.
LONG = (
    _Kind(name="pause client beyond its lease", targets="client", lasts_s=EXPIRED_S, window_s=(2, 8)),
    _Kind(name="pause server beyond a lease", targets="server", lasts_s=EXPIRED_S, window_s=(2, 8)),
    _Kind(name="pause housekeeper beyond a lease", targets="housekeeper", lasts_s=EXPIRED_S, window_s=(2, 8)),
)
PHASES = (
    _Kind(name="only one host", targets="host", lasts_s=(8, 12), variants=("killed", "stopped")),
    _Kind(name="only one account", targets="client", lasts_s=(8, 12), variants=("killed", "stopped")),
)
SHORT = (
    _Kind(name="kill client", targets="client", lasts_s=BRIEF_S, weight=6),
    _Kind(name="pause client", targets="client", lasts_s=PURGED_S, weight=4),
    _Kind(name="cut client off", targets="client", lasts_s=(3, 15), weight=4),
    _Kind(name="kill server", targets="server", lasts_s=BRIEF_S, weight=2, variants=("all", "worker")),
    _Kind(name="pause server", targets="server", lasts_s=PURGED_S, weight=1),
    _Kind(name="kill housekeeper", targets="housekeeper", lasts_s=BRIEF_S, weight=2),
    _Kind(name="pause housekeeper", targets="housekeeper", lasts_s=PURGED_S, weight=1),
    _Kind(name="kill primary", targets="primary", lasts_s=BRIEF_S, weight=1, rest_s=RECOVERY_S),
    _Kind(
        name="kill lagging primary", targets="primary", lasts_s=BRIEF_S, least=2, weight=1, rest_s=RECOVERY_S
    ),
    _Kind(name="failing host", targets="host", lasts_s=(5, 10), window_s=(10, 75), weight=1),
    _Kind(name="crashing host", targets="host", lasts_s=(5, 10), window_s=(10, 75), weight=1),
    _Kind(name="hanging host", targets="host", lasts_s=(5, 10), window_s=(10, 75)),
)
KINDS = tuple(kind.name for kind in (*LONG, *PHASES, *SHORT))


def make_plan(seed: int, seconds: float, roster: Sequence[Member]) -> list[Fault]:
    """The faults in the order of their beginnings; in each whole round every kind."""
    dice = random.Random(f"{seed}/plan")
    plan: list[Fault] = []
    for number in range(max(1, round(seconds / ROUND_S))):
        plan += _Round(dice, roster, begin_s=number * ROUND_S).draw()
    return sorted((one for one in plan if one.at_s < seconds), key=lambda one: one.at_s)


@dataclass
class _Round:
    """One round under way: who is busy when, so that no fault undoes another."""

    dice: random.Random
    roster: Sequence[Member]
    begin_s: float
    busy: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def draw(self) -> list[Fault]:
        """All faults of the round."""
        for kind in LONG:
            self._place(kind, self._touched)
        for phase in PHASES:
            self._place(phase, self._touched_by_phase)
        mandatory = [kind for kind in SHORT for _ in range(kind.least)]
        self.dice.shuffle(mandatory)
        weights = [kind.weight for kind in SHORT]
        for kind in (*mandatory, *self.dice.choices(SHORT, weights, k=EXTRAS)):
            self._place(kind, self._touched)
        return self.faults

    def _place(self, kind: _Kind, touched: Callable[[_Kind, int], Iterable[str]]) -> None:
        for _ in range(500):
            begin, lasts = self.dice.uniform(*kind.window_s), self.dice.uniform(*kind.lasts_s)
            target = self._target(kind)
            names = list(touched(kind, target))
            end = begin + lasts + kind.rest_s
            if names and all(self._is_free(name, begin, end) for name in names):
                for name in names:
                    self.busy.setdefault(name, []).append((begin, end))
                variant = self.dice.choice(list(kind.variants))
                at_s = round(self.begin_s + begin, 2)
                fault = Fault(
                    at_s=at_s, kind=kind.name, target=target, lasts_s=round(lasts, 2), variant=variant
                )
                self.faults.append(fault)
                return

    def _is_free(self, name: str, begin: float, end: float) -> bool:
        return all(end <= start or stop <= begin for start, stop in self.busy.get(name, ()))

    def _target(self, kind: _Kind) -> int:
        if kind.targets == "client":
            return self.dice.randrange(len(self.roster))
        if kind.targets == "host":
            return self.dice.choice(sorted({one.host for one in self.roster if not one.liar}))
        return self.dice.randrange(
            {"server": SERVERS, "housekeeper": HOUSEKEEPERS, "primary": 1}[kind.targets]
        )

    def _touched(self, kind: _Kind, target: int) -> list[str]:
        return [f"{kind.targets} {target}"]

    def _touched_by_phase(self, kind: _Kind, target: int) -> list[str]:
        """Every client but those that a long pause has anyway; nobody at all where such a one should be at work."""
        paused = {fault.target for fault in self.faults if fault.kind == LONG[0].name}
        left = survivors(kind.name, target, self.roster)
        if any(one.liar or one.number in paused for one in left):
            return []
        # Nor is there a change of primary meanwhile: one is to meet as much work as there can be.
        return ["primary 0", *(f"client {one.number}" for one in self.roster if one.number not in paused)]


def survivors(kind: str, target: int, roster: Sequence[Member]) -> list[Member]:
    """The clients that a phase leaves at work."""
    if kind == "only one host":
        return [one for one in roster if one.host == target]
    account = roster[target].account
    return [one for one in roster if one.account == account]
