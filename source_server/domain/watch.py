"""Whether the source server has been at work long enough to judge a container's silence."""

from __future__ import annotations

from source_server.domain.timing import SERVICE_BEATS


class WorkingService:
    """Remembers since when service has worked without a gap, as one housekeeper has seen it itself.

    Containers cannot beat while no server answers: whoever has not watched it answer for some beats must not take
    silence for death. Instants are seconds of any monotonic clock.
    """

    def __init__(self, *, beat_s: float, longest_gap_s: float) -> None:
        self._needed_s = SERVICE_BEATS * beat_s
        self._longest_gap_s = longest_gap_s
        self._since: float | None = None
        self._last: float | None = None

    def observe(self, instant: float, *, serving: bool) -> None:
        """One look at the service. A long time without a look counts as a gap: we may have been stopped ourselves."""
        overslept = self._last is not None and instant - self._last > self._longest_gap_s
        if not serving:
            self._since = None
        elif self._since is None or overslept:
            self._since = instant
        self._last = instant

    def proved(self, instant: float) -> bool:
        """Whether silence may be judged at this instant."""
        return self._since is not None and instant - self._since >= self._needed_s
