"""How ready chunks are dealt to containers: round-robin, levelling what each one already holds."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping


def level(holding: Mapping[str, int]) -> Iterator[str]:
    """Yield container ids for ever, always one that holds the fewest chunks; ties go round by id.

    `holding` is how many chunks each container holds now; each id yielded counts as one more. With no container
    there is nothing to yield.
    """
    heap = [(held, container) for container, held in holding.items()]
    heapq.heapify(heap)
    while heap:
        held, container = heap[0]
        heapq.heapreplace(heap, (held + 1, container))
        yield container
