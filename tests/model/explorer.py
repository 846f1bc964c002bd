"""Breadth-first search through all states that a small model can get into.

A violation comes with the shortest way to it. A state from which no state of rest can be reached any more is one too.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

STUCK = "no state of rest can be reached any more"

State = TypeVar("State", bound=Hashable)


class Model(Protocol[State]):
    """What is explored. States are small, hashable and in one canonical form."""

    @property
    def initial(self) -> State:
        """Where it begins."""

    def steps(self, state: State) -> Iterable[tuple[str, State]]:
        """(what happens, the state afterwards) for everything that may happen next."""

    def wrongs(self, state: State) -> Iterable[str]:
        """A sentence for each property that does not hold here."""

    def is_at_rest(self, state: State) -> bool:
        """Whether all that was begun has come to its end."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A property that does not hold, and the shortest way to where it does not."""

    sentence: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.sentence}:\n{steps}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the search came to. `exhausted`: every state was looked at, none left out."""

    states: int
    exhausted: bool
    violations: tuple[Violation, ...]
    happened: frozenset[str]  #: the steps by which states were found

    def __str__(self) -> str:
        extent = "all" if self.exhausted else "the first"
        found = "\n".join(map(str, self.violations)) or "no violation"
        return f"{extent} {self.states} states: {found}"


def explore(model: Model[State], *, most: int = 1_000_000, until_first: bool = False) -> Report:
    """Look at every state, at most so many; one violation of each kind. `until_first`: stop at the first one."""
    return _Search(model, most=most, until_first=until_first).run()


class _Search(Generic[State]):
    """One search under way. States have numbers in the order of their discovery."""

    def __init__(self, model: Model[State], *, most: int, until_first: bool) -> None:
        self._model = model
        self._most = most
        self._until_first = until_first
        self._states: list[State] = [model.initial]
        self._numbers: dict[State, int] = {model.initial: 0}
        self._parents = array("q", [-1])
        self._labels: list[str] = [""]
        self._edges = (array("q"), array("q"))  #: from, to
        self._found: dict[str, int] = {}

    def run(self) -> Report:
        looked = 0
        while looked < len(self._states) and not self._is_over():
            self._look(looked)
            looked += 1
        exhausted = looked == len(self._states)
        if exhausted and not self._is_over():
            stuck = self._stuck()
            if stuck is not None:
                self._found[STUCK] = stuck
        violations = [Violation(sentence=one, trace=self._trace(at)) for one, at in self._found.items()]
        return Report(
            states=len(self._states),
            exhausted=exhausted,
            violations=tuple(violations),
            happened=frozenset(self._labels[1:]),
        )

    def _is_over(self) -> bool:
        return len(self._states) > self._most or (self._until_first and bool(self._found))

    def _look(self, number: int) -> None:
        state = self._states[number]
        for sentence in self._model.wrongs(state):
            self._found.setdefault(sentence, number)
        origins, targets = self._edges
        for label, after in self._model.steps(state):
            target = self._numbers.get(after)
            if target is None:
                target = self._numbers[after] = len(self._states)
                self._states.append(after)
                self._parents.append(number)
                self._labels.append(label)
            origins.append(number)
            targets.append(target)

    def _stuck(self) -> int | None:
        """The first state from which no state of rest can be reached, or None."""
        resting = [number for number, state in enumerate(self._states) if self._model.is_at_rest(state)]
        reached = bytearray(len(self._states))
        for number in resting:
            reached[number] = 1
        first, origins = self._backwards()
        todo = resting
        while todo:
            number = todo.pop()
            for place in range(first[number], first[number + 1]):
                origin = origins[place]
                if not reached[origin]:
                    reached[origin] = 1
                    todo.append(origin)
        stuck = reached.find(0)
        return None if stuck < 0 else stuck

    def _backwards(self) -> tuple[array[int], array[int]]:
        """The edges by target: those to number n are the origins at first[n] up to first[n + 1]."""
        origins, targets = self._edges
        first = array("q", bytes(8 * (len(self._states) + 1)))
        for target in targets:
            first[target + 1] += 1
        for number in range(len(self._states)):
            first[number + 1] += first[number]
        place, sorted_ = array("q", first), array("q", bytes(8 * len(origins)))
        for origin, target in zip(origins, targets, strict=True):
            sorted_[place[target]] = origin
            place[target] += 1
        return first, sorted_

    def _trace(self, number: int) -> tuple[str, ...]:
        return tuple(reversed(list(self._way_back(number))))

    def _way_back(self, number: int) -> Iterator[str]:
        while number:
            yield self._labels[number]
            number = self._parents[number]
