"""How long a task's attempts take, and what follows from it: the size of a claim, what it is charged, who straggles.

All durations are in seconds, and as the server measured them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from source_server.domain.chunk import Chunk

CLAIM_S = 600.0  #: work that one claim may bring
GUESS_S = 10.0  #: what a chunk is charged while nothing is known of its task
VALIDATOR_CLAIM = 4  #: chunks of a validator in one claim: each carries whole answers
ENOUGH = 10  #: attempts after which the 95th percentile counts for something
LEAST_STRAGGLE_S = 60.0  #: nobody straggles before
HEDGED_SHARE = 10  #: one hedge for so many live containers
QUICKEST_S = 1e-3  #: no attempt is reckoned with less


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A task's recent attempts, ended well or not."""

    mean_s: float
    p95_s: float
    ended: int  #: attempts that ended so far, all of them


def pace_of(durations: Sequence[float], ended: int) -> Pace | None:
    """The figures of these recent durations; None without any."""
    if not durations:
        return None
    in_order = sorted(durations)
    nearest = max(0, -(-95 * len(in_order) // 100) - 1)
    return Pace(
        mean_s=sum(in_order) / len(in_order), p95_s=in_order[nearest], ended=max(ended, len(in_order))
    )


def room(pace: Pace | None, *, timeout_s: float, left_s: float) -> int:
    """How many chunks of a task fit into `left_s`; while nothing is known of it, each may take its whole timeout."""
    return int(left_s / reckoned_s(pace, timeout_s=timeout_s))


def reckoned_s(pace: Pace | None, *, timeout_s: float) -> float:
    """How long a claim has to reckon with one chunk."""
    return max(QUICKEST_S, timeout_s if pace is None else pace.mean_s)


def charge_s(pace: Pace | None, *, timeout_s: float) -> float:
    """What a chunk costs its project when it is handed out, in seconds of machine time."""
    # Not the whole timeout: a long one, never needed, would set a new project back for a day.
    return min(GUESS_S, timeout_s) if pace is None else max(QUICKEST_S, pace.mean_s)


def straggles_after(pace: Pace | None, *, timeout_s: float, least_s: float = LEAST_STRAGGLE_S) -> float:
    """The age from its start at which an attempt is a straggler: twice what nearly all of them needed.

    Half the timeout stands in while too few have ended.
    """
    usual = pace.p95_s if pace is not None and pace.ended >= ENOUGH else timeout_s / 2
    return max(2 * usual, least_s)


def straggles(chunk: Chunk, *, now: datetime, after_s: float) -> bool:
    """Whether somebody who computes the chunk began longer ago than that."""
    since = now - timedelta(seconds=after_s)
    return any(held.started is not None and held.started < since for held in chunk.leases)


def hedges(live: int) -> int:
    """How many hedges may be out among so many live containers: a tenth, and at least one."""
    return max(1, live // HEDGED_SHARE)
