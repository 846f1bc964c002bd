"""How long to leave a server alone that did not answer."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Random pauses (full jitter) whose ceiling doubles from `base_s` to `cap_s`; a success starts over."""

    def __init__(
        self, *, base_s: float = 1.0, cap_s: float = 60.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._base_s, self._cap_s, self._chance = base_s, cap_s, chance
        self._ceiling_s = base_s

    def pause(self, retry_after: float | None = None) -> float:
        """Seconds to wait after one more failure; never less than the server asked for."""
        drawn = self._chance() * self._ceiling_s
        self._ceiling_s = min(self._cap_s, self._ceiling_s * 2)
        return max(drawn, retry_after or 0.0)

    def reset(self) -> None:
        """The server answered: the next failure pauses at most `base_s` again."""
        self._ceiling_s = self._base_s
