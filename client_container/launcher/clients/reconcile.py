"""What to do about the difference between the containers that are wanted and those that are there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

BATCH = 4  #: containers started in one step, so that a step stays short
STEADY_S = 30.0  #: a container that ran this long did not fail at its start
SLOWEST_S = 60.0  #: longest pause before a crashing container is tried again

ALIVE = frozenset({"running", "paused"})
GOING = "removing"  #: the engine is at it already; the name is not free yet


class Reason(str, Enum):
    """Why a container is removed."""

    ENDED = "ended"
    CHANGED = "changed"
    DUPLICATE = "duplicate"
    SURPLUS = "surplus"
    ORPHAN = "orphan"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A container of this instance, as the engine has it."""

    id: str
    slot: int | None  #: None when its label is no number
    config: str  #: digest of the configuration it was made from
    state: str  #: the engine's word: created, running, paused, removing, exited, dead
    image: str = ""  #: id of its image
    created: float = 0.0  #: seconds since the epoch, by the engine's clock


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Slots 0 .. count-1, each with one living container of this configuration."""

    count: int
    config: str


@dataclass(frozen=True)
class Remove:
    """Stop it if it lives, then remove it."""

    container: Found
    reason: Reason


@dataclass(frozen=True)
class Create:
    """Make and start the container of a slot, on the slot's volume."""

    slot: int


Action = Remove | Create


def reconcile(wanted: Wanted, found: Sequence[Found], *, held: Iterable[int] = ()) -> list[Action]:
    """The next actions, removals first; none when all is well. Slots in `held` are not filled yet (see Pace).

    Containers of another configuration are replaced one by one, and only while all others live.
    """
    slots = {slot: [one for one in found if one.slot == slot] for slot in range(wanted.count)}
    kept = {slot: best for slot, there in slots.items() if (best := _best(wanted, there)) is not None}
    removals = [
        Remove(one, _reason(wanted, one)) for one in found if one.state != GOING and one not in kept.values()
    ]
    busy = {slot for slot, there in slots.items() if any(one.state == GOING for one in there)}
    missing = [slot for slot in slots if slot not in kept]
    free = [slot for slot in missing if slot not in busy and slot not in set(held)]
    if missing:
        return [*removals, *(Create(slot) for slot in free[:BATCH])]
    old = next((slot for slot, one in kept.items() if one.config != wanted.config), None)
    if old is None:
        return [*removals]
    return [*removals, Remove(kept[old], Reason.CHANGED), Create(old)]


def _best(wanted: Wanted, there: Sequence[Found]) -> Found | None:
    """The container that keeps its slot: alive, rather of the wanted configuration, rather the oldest."""
    alive = [one for one in there if one.state in ALIVE]
    return min(alive, key=lambda one: (one.config != wanted.config, one.created, one.id), default=None)


def _reason(wanted: Wanted, one: Found) -> Reason:
    if one.slot is None:
        return Reason.ORPHAN
    if not 0 <= one.slot < wanted.count:
        return Reason.SURPLUS
    return Reason.DUPLICATE if one.state in ALIVE else Reason.ENDED


@dataclass(frozen=True)
class Pace:
    """How soon a slot may be filled again. The first death is made good at once, a crash loop slows down."""

    failures: int = 0  #: deaths in a row, each soon after its start
    not_before: float = 0.0  #: on the same clock as `now`

    def after_end(self, *, ran_s: float, now: float) -> Pace:
        """The pace after its container ran `ran_s` seconds, or after none could be made (0)."""
        failures = 1 if ran_s >= STEADY_S else self.failures + 1
        delay = 0.0 if failures == 1 else min(SLOWEST_S, 2.0 ** (failures - 2))
        return Pace(failures, now + delay)
