"""Who could take one chunk now: every live container as it looks from there, and in words what keeps each from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from source_server.domain.agreement import identity
from source_server.domain.eligibility import Bar
from source_server.domain.task import Lack
from source_server.domain.validation import Distinct, Same, Validation

MOST_NAMED = 5  #: requirements listed one by one


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """A live container, seen from one chunk."""

    container: str
    life: str
    host: str
    account: str
    platform: str = ""  #: what `same` of a quorum compares
    lacks: tuple[Lack, ...] = ()  #: requirements of the job that it does not meet
    bar: Bar | None = None  #: what keeps a container that fits from this very chunk
    paused: bool = False
    quarantined: bool = False  #: its host gets canaries only
    full: bool = False  #: its host holds as many chunks as it may
    holds: int = 0  #: chunks that it says it has

    @property
    def free(self) -> bool:
        """Whether nothing keeps it from the chunk."""
        return not (self.lacks or self.bar or self.paused or self.quarantined or self.full)


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why nobody takes the chunk: one sentence, what lies behind it, and what would help."""

    says: str
    details: tuple[str, ...] = ()
    helps: str = ""


def counted(number: int, what: str) -> str:
    """`1 container`, `3 containers`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def obstacle(prospects: Sequence[Prospect], rule: Validation) -> Obstacle | None:
    """Why none of the live containers takes the chunk; None when one could."""
    if not prospects:
        return Obstacle(says="No client container is live.", helps="Start one, or wait until one comes.")
    fitting = [one for one in prospects if not one.lacks]
    if not fitting:
        return unfit(prospects)
    if any(one.free for one in fitting):
        return None
    open_to = [one for one in fitting if one.bar is None]
    return _held_up(open_to, fitting) if open_to else _barred(fitting, rule)


def unfit(prospects: Sequence[Prospect]) -> Obstacle:
    """None of them (at least one) meets what the job asks for: what is missing how often, and who comes nearest."""
    number = len(prospects)
    says = (
        "The one live container does not fit."
        if number == 1
        else f"None of the {number} live containers fits."
    )
    missing = Counter(lack.needs for one in prospects for lack in one.lacks)
    details = [
        f"The job needs {needs}: "
        + ("none of them has it." if times == number else f"{times} of {number} lack it.")
        for needs, times in missing.most_common(MOST_NAMED)
    ]
    nearest = min(prospects, key=lambda one: (len(one.lacks), one.container))
    lacking = ", ".join(map(str, nearest.lacks))
    details.append(f"Nearest is container {nearest.container} on host {nearest.host}: it lacks {lacking}.")
    return Obstacle(
        says=says,
        details=tuple(details),
        helps="Start a container that has what the job needs, or submit the task with other requirements.",
    )


def quorum_shortage(
    rule: Validation, fitting: Iterable[Prospect], given: Collection[tuple[str, str]] = ()
) -> str | None:
    """The sentence that says that these containers cannot make up the quorum; None when they can.

    `given`: (identity, platform) of those that answered or are at it.
    """
    if not rule.checks:
        return None
    able = {(_identity(rule, one), one.platform) for one in fitting} | set(given)
    different = len({name for name, _ in able})
    what = rule.distinct.value
    if different < rule.quorum:
        return (
            f"{rule.quorum} answers of different {what}s have to agree, and the live containers that fit "
            f"belong to only {counted(different, what)}."
        )
    together = max(Counter(where for _, where in able).values())
    if rule.same is not Same.ANY and together < rule.quorum:
        return (
            f"{rule.quorum} answers of different {what}s from the same {rule.same.value} have to agree, and of the "
            f"live containers that fit no {rule.same.value} has more than {counted(together, what)}."
        )
    return None


def _identity(rule: Validation, one: Prospect) -> str:
    return identity(rule, account=one.account, host=one.host, container=one.container)


def _barred(fitting: Sequence[Prospect], rule: Validation) -> Obstacle:
    bars = Counter(one.bar for one in fitting if one.bar is not None)
    says = f"{_none_of(len(fitting))} may take this chunk."
    details = [
        f"{counted(times, 'container')}: {_bar_in_words(bar, rule)}." for bar, times in bars.most_common()
    ]
    return Obstacle(says=says, details=tuple(details), helps=_help_for(bars, rule))


def _held_up(open_to: Sequence[Prospect], fitting: Sequence[Prospect]) -> Obstacle:
    """They fit and may, but cannot now."""
    quarantined = sum(one.quarantined for one in open_to)
    paused = sum(one.paused and not one.quarantined for one in open_to)
    full = len(open_to) - quarantined - paused
    details = []
    if full:
        details.append(f"{counted(full, 'container')}: the host holds as many chunks as it may just now.")
    if paused:
        details.append(f"{counted(paused, 'container')}: paused by the volunteer.")
    if quarantined:
        details.append(
            f"{counted(quarantined, 'container')}: the host is in quarantine, until test chunks clear it."
        )
    barred = len(fitting) - len(open_to)
    if barred:
        details.append(f"{counted(barred, 'container')}: may not take this chunk.")
    return Obstacle(
        says=f"{_none_of(len(fitting))} can take it just now.",
        details=tuple(details),
        helps="It goes to the first of them that has room." if full else "Start another container that fits.",
    )


def _none_of(number: int) -> str:
    return "No live container that fits" if number == 1 else f"None of the {number} live containers that fit"


def _bar_in_words(bar: Bar, rule: Validation) -> str:
    if bar is not Bar.ANSWERED:
        return str(bar.value)
    giver = {
        Distinct.ACCOUNT: "its account",
        Distinct.HOST: "its host",
        Distinct.CONTAINER: "it",
    }[rule.distinct]
    return f"{giver} has given one of the answers, or is computing one, and the next has to come from another"


def _help_for(bars: Collection[Bar], rule: Validation) -> str:
    if Bar.ANSWERED in bars:
        return f"It waits for a container of another {rule.distinct.value} that fits."
    if Bar.PLATFORM in bars:
        return f"It waits for a container with the same {rule.same.value} as the first answer's."
    if Bar.KEPT in bars:
        return "It waits for a container that the operator labelled trusted."
    if Bar.UNPROVED in bars:
        return "It waits for a container of an account with a long record of agreement."
    return "It waits for a container that has not tried it."
