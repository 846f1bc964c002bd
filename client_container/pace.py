"""How many chunks to claim at once."""

from __future__ import annotations

TARGET_S = 10.0  #: work that one claim should bring, by recent durations
MOST = 256
GROWTH = 4  #: a claim is at most this many times the one before
_WEIGHT = 0.25  #: of the newest duration in the running mean


class Pace:
    """Adapts the size of a claim to what the recent chunks took."""

    def __init__(self) -> None:
        self._mean_s: float | None = None
        self._granted = 1

    def finished(self, seconds: float) -> None:
        """A chunk took `seconds`."""
        if self._mean_s is None:
            self._mean_s = seconds
        else:
            self._mean_s += _WEIGHT * (seconds - self._mean_s)

    def granted(self, want: int) -> None:
        """A claim for `want` chunks brought some."""
        self._granted = want

    def want(self) -> int:
        """How many chunks to ask for now, at least one."""
        if self._mean_s is None:
            return 1
        by_work = TARGET_S / max(self._mean_s, 1e-4)
        return max(1, int(min(MOST, by_work, GROWTH * self._granted)))
