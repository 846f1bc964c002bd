"""How long leases last and when silence means death. All durations in seconds; the time is handed in."""

from __future__ import annotations

from datetime import datetime, timedelta

GRACE_S = 60.0  #: allowance on every lease for the way there and back
MISSED_BEATS = 3  #: silent beat intervals after which a container is purged
SERVICE_BEATS = 3  #: beat intervals of working service a housekeeper must have seen before it purges


def lease_until(now: datetime, *, timeout_s: float, place: int, beat_s: float) -> datetime:
    """The deadline of the lease that is `place`th (from 1) in its claim, unless a beat restarts it."""
    return now + timedelta(seconds=timeout_s * place + GRACE_S + beat_s)


def computed_for(
    since: datetime, started: datetime | None, until: datetime, now: datetime, *, timeout_s: float
) -> float:
    """Seconds that an attempt took, as the server can tell when it ends.

    Where no beat said that it had started, it was one of several in its claim, done one after another: its deadline
    tells which.
    """
    if started is not None:
        return max(0.0, (now - started).total_seconds())
    place = max(1, int(((until - since).total_seconds() - GRACE_S) / timeout_s))
    return max(0.0, (now - since).total_seconds()) / place


def silent_since(now: datetime, *, beat_s: float) -> datetime:
    """Whoever was last seen before this instant has missed its beats."""
    return now - timedelta(seconds=MISSED_BEATS * beat_s)


def instant(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
