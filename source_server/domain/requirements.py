"""What a job asks of a container, and whether its labels and resources meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Label = str | float


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One named label or resource: it is one of `one_of`, or a number of `at_least`."""

    name: str
    one_of: tuple[Label, ...] = ()
    at_least: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"{self.name} at least {in_words(self.at_least)}"
        return f"{self.name} = {' or '.join(map(in_words, self.one_of))}"


def in_words(value: Label) -> str:
    """The value as people write it: 65536 and not 65536.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def met(requirement: Requirement, has: Mapping[str, Label]) -> bool:
    """Whether these labels and resources meet it; what is not there meets nothing."""
    value = has.get(requirement.name)
    if value is None:
        return False
    if requirement.at_least is not None:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and value >= requirement.at_least
        )
    return any(_equal(value, wanted) for wanted in requirement.one_of)


def unmet(requirements: Sequence[Requirement], has: Mapping[str, Label]) -> list[Requirement]:
    """Those that are not met."""
    return [one for one in requirements if not met(one, has)]


def _equal(value: Label, wanted: Label) -> bool:
    return value == wanted if isinstance(value, str) == isinstance(wanted, str) else str(value) == str(wanted)
