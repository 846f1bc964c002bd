"""What a process remembers for two seconds, so that it does not ask for nothing again and again.

Hints, and all about dispatch that is kept in memory: only the guarded update of a chunk decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence

EMPTY_S = 2.0  #: how long "nothing here" is believed
SWEEP_S = 0.5  #: pause between two steps of a sweep
MOST = 10_000  #: things remembered
SPREADS = 16  #: counts remembered, each of the tasks that some container fits

Spread = dict[tuple[str, str], int]  #: (container, life) -> chunks dealt to it and not leased yet


class Hints:
    """One for each process, shared by its threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._until: dict[Hashable, float] = {}
        self._sweeps: dict[Hashable, float] = {}
        self._counting = threading.Lock()
        self._spreads: dict[tuple[str, ...], tuple[float, Spread]] = {}

    def note(self, what: Hashable, seconds: float = EMPTY_S) -> None:
        """There was nothing of this just now."""
        with self._lock:
            now = self._monotonic()
            if len(self._until) >= MOST:
                self._until = {one: until for one, until in self._until.items() if until > now}
            if len(self._until) < MOST:
                self._until[what] = now + seconds

    def holds(self, what: Hashable) -> bool:
        """Whether that is still believed."""
        with self._lock:
            return self._until.get(what, 0.0) > self._monotonic()

    def spread(self, tasks: Sequence[str], count: Callable[[Sequence[str]], Spread]) -> Spread:
        """How many chunks of these tasks were dealt to whom, as counted at most two seconds ago."""
        of = tuple(sorted(tasks))
        with self._counting:
            until, known = self._spreads.get(of, (0.0, {}))
            if until <= self._monotonic():
                known = count(of)
                if len(self._spreads) >= SPREADS:
                    self._spreads.clear()
                self._spreads[of] = (self._monotonic() + EMPTY_S, known)
            return known

    def sweep_from(self, who: Hashable) -> float:
        """Where a search that goes over all chunks in steps is to go on: a place 0 <= r < 1."""
        with self._lock:
            return self._sweeps.get(who, 0.0)

    def swept(self, who: Hashable, end: float) -> None:
        """Nothing was found up to there, which is believed until the next step; at 1 there is nothing at all."""
        with self._lock:
            if len(self._sweeps) >= MOST:
                self._sweeps.clear()
            if end < 1:
                self._sweeps[who] = end
            else:
                self._sweeps.pop(who, None)
        self.note(who, SWEEP_S if end < 1 else EMPTY_S)
