"""How ready chunks are dealt to containers: levelling what each one already holds, as a number or as work for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from statistics import median


class By(str, Enum):
    """What a deal makes level."""

    COUNT = "count"  #: the number of chunks that each container holds
    SPEED = "speed"  #: the time that each container needs for what it holds


class Scale:
    """Containers by what they have before them; the next chunk goes to the one with the least.

    `holding` is how many chunks each container holds now, `speeds` how many each finishes in some unit of time (all
    above 0; absent: all alike). What counts is when a container would have finished one chunk more. Ties go by id.
    """

    def __init__(self, holding: Mapping[str, int], speeds: Mapping[str, float] | None = None) -> None:
        self._speeds = speeds or dict.fromkeys(holding, 1.0)
        self._heap = [self._place(container, held) for container, held in holding.items()]
        heapq.heapify(self._heap)

    def take(self, may: Callable[[str], bool] | None = None) -> str | None:
        """The container that the next chunk goes to, which holds one more now; only one that `may` have it.

        None when no container may.
        """
        passed = []
        chosen = None
        while self._heap and chosen is None:
            place = heapq.heappop(self._heap)
            _, container, held = place
            if may is None or may(container):
                chosen = container
                place = self._place(container, held + 1)
            passed.append(place)
        for place in passed:
            heapq.heappush(self._heap, place)
        return chosen

    def _place(self, container: str, held: int) -> tuple[float, str, int]:
        return (held + 1) / self._speeds[container], container, held


def level(holding: Mapping[str, int], speeds: Mapping[str, float] | None = None) -> Iterator[str]:
    """Yield container ids for ever, as `Scale` takes them; with no container there is nothing to yield."""
    scale = Scale(holding, speeds)
    while (container := scale.take()) is not None:
        yield container


def speeds(rates: Mapping[str, float]) -> dict[str, float]:
    """How fast containers are, from the rates at which they gave accepted results (0: nothing is known of it yet).

    A newcomer counts as the median of the others: it is neither flooded nor left without work.
    """
    known = [rate for rate in rates.values() if rate > 0]
    usual = median(known) if known else 1.0
    return {container: rate if rate > 0 else usual for container, rate in rates.items()}
