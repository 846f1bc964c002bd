"""Whether jobs may run now: the volunteer's conditions against what the machine says. Pure; told the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import Enum

from client_container.launcher.policy.policy import Policy
from client_container.launcher.policy.text import DAYS, about, show_hours

SETTLE_S = 60.0  #: what flickers must last this long before anything happens, either way
GIVE_BACK_S = 600.0  #: frozen for longer, jobs are given back
#: Degrees below the limit at which a machine counts as cool again: jobs that rest cool it at once.
COOLER = 5.0


class Word(str, Enum):
    """What is to be done with jobs."""

    RUN = "run"
    FREEZE = "freeze"
    GIVE_BACK = "give_back"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What holds now, and why in words (empty while jobs may run)."""

    word: Word
    why: str = ""
    since: float = 0.0  #: on the clock of `now`: when jobs were stopped, or allowed again


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What the machine says of itself; None where it does not say, which never stops anything."""

    local: datetime  #: by the machine's wall clock and time zone
    transferred: int = 0  #: bytes since midnight
    in_use: str | None = None  #: by what a person can be told to use the machine; None: nobody does
    on_battery: bool | None = None
    metered: bool | None = None
    hottest: float | None = None  #: degrees Celsius


@dataclass(frozen=True, kw_only=True)
class Pause:
    """The volunteer said so."""

    until: datetime | None = None  #: on the same clock as Readings.local; None: until resumed


@dataclass(frozen=True)
class Complaint:
    """A condition of the policy that is not met, and may be again in a moment."""

    why: str
    heat: bool = False


class Governor:
    """Remembers what it takes to let flickering conditions settle. `now` is monotonic seconds, without suspend."""

    def __init__(self) -> None:
        self._standing: Standing | None = None
        self._settled: Complaint | None = None  #: the flickering one that holds
        self._wavering_since: float | None = None  #: since when the readings say otherwise

    def step(self, now: float, readings: Readings, policy: Policy, pause: Pause | None) -> Standing:
        """The standing at `now`."""
        hot = self._settled is not None and self._settled.heat
        complaint = next(flickering(readings, policy, hot=hot), None)
        self._settle(now, complaint)
        settled = self._settled.why if self._settled else None
        why = paused(readings, pause) or steady(readings, policy) or settled
        self._standing = _next(self._standing, now, why)
        return self._standing

    def _settle(self, now: float, complaint: Complaint | None) -> None:
        """Take over what the readings say, at the very first look or after it lasted SETTLE_S."""
        if self._standing is None or (complaint is None) == (self._settled is None):
            self._settled, self._wavering_since = complaint, None
            return
        if self._wavering_since is None:
            self._wavering_since = now
        if now - self._wavering_since >= SETTLE_S:
            self._settled, self._wavering_since = complaint, None


def _next(before: Standing | None, now: float, why: str | None) -> Standing:
    if why is None:
        kept = before is not None and before.word is Word.RUN
        return before if kept and before else Standing(word=Word.RUN, since=now)
    if before is None or before.word is Word.RUN:
        return Standing(word=Word.FREEZE, why=why, since=now)
    given_back = before.word is Word.GIVE_BACK or now - before.since >= GIVE_BACK_S
    return replace(before, why=why, word=Word.GIVE_BACK if given_back else Word.FREEZE)


def paused(readings: Readings, pause: Pause | None) -> str | None:
    """Why the volunteer's pause stops jobs; None when there is none, or it is over."""
    if pause is None:
        return None
    if pause.until is None:
        return "You paused it."
    return (
        f"You paused it until {_moment(pause.until, readings.local)}."
        if readings.local < pause.until
        else None
    )


def steady(readings: Readings, policy: Policy) -> str | None:
    """The first complaint about what does not flicker: hours, and the day's transfer."""
    if policy.hours and not within(policy, readings.local):
        return f"Outside the hours of your policy ({show_hours(policy.hours)})."
    if policy.transfer_a_day is not None and readings.transferred >= policy.transfer_a_day:
        return f"Today's transfer of {about(policy.transfer_a_day)} is used up; it starts anew at midnight."
    return None


def flickering(readings: Readings, policy: Policy, *, hot: bool) -> Iterator[Complaint]:
    """What may be over in a moment. `hot`: the machine was too hot, and has to cool well below the limit."""
    if policy.hottest is not None and readings.hottest is not None:
        limit = policy.hottest - (COOLER if hot else 0)
        if readings.hottest > limit:
            yield Complaint(
                f"The machine is hot ({readings.hottest:.0f} of at most {limit:.0f} degrees).", heat=True
            )
    if policy.idle_only and readings.in_use is not None:
        yield Complaint(f"The machine is in use ({readings.in_use}).")
    if not policy.on_battery and readings.on_battery:
        yield Complaint("The machine runs on battery.")
    if not policy.metered and readings.metered:
        yield Complaint("The network is metered.")


def within(policy: Policy, local: datetime) -> bool:
    """Whether a moment lies in the hours of the policy."""
    if not policy.hours:
        return True
    today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
    clock = local.time()
    return any(_begun(begin, until, clock) for begin, until in policy.hours.get(today, ())) or any(
        until <= begin and clock < until for begin, until in policy.hours.get(yesterday, ())
    )


def _begun(begin: time, until: time, clock: time) -> bool:
    """Whether a range that began today is on."""
    return begin <= clock and (clock < until or until <= begin)


def _moment(until: datetime, local: datetime) -> str:
    return f"{until:%H:%M}" if until - local < timedelta(hours=20) else f"{until:%Y-%m-%d %H:%M}"
