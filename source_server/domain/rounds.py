"""Rounds: chunks of a task are sent out again, either for another try or, in a rerun, to be computed anew.

A task has at most one round under way, written on the task itself; each chunk carries the number of the last round
that sent it out. So a round that a crash broke off goes on anywhere, and sends no chunk out twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.signature import DISAGREEMENT


class Which(str, Enum):
    """The chunks that a round is about."""

    ALL = "all"
    FAILED = "failed"  #: the quarantined ones
    SUSPECT = "suspect"  #: those whose only answer came from a host that has lost our trust since
    SIGNATURE = "signature"  #: the quarantined ones with a failure of one signature
    CHUNKS = "chunks"  #: those named


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of a task, while it is under way."""

    number: int  #: counted in the task, from 1
    which: Which
    anew: bool  #: a rerun: begins a new run, what was answered before counts no more
    signature: str | None = None  #: for `Which.SIGNATURE`
    chunks: tuple[str, ...] = ()  #: for `Which.CHUNKS`
    after: str = ""  #: how far it is: the place of the last chunk looked at, in the order of its kind
    sent: int = 0  #: chunks sent out so far
    hand: str | None = None  #: the process that carries it out; None: whoever comes
    touched: datetime | None = None  #: when that one last wrote


def sent_out(chunk: Chunk, round_: Round, *, first_replicas: int) -> Chunk | None:
    """The chunk after this round, or None where the round does not concern it (any more).

    Whether a chunk is suspect is in its result: the caller looks that up.
    """
    if chunk.round >= round_.number or not _concerns(chunk, round_):
        return None
    event = "rerun" if round_.anew else "requeue"
    if not rules.MAY[event](chunk):
        return None
    again = rules.rerun(chunk, first_replicas) if round_.anew else rules.requeue(chunk)
    return replace(again, round=round_.number)


def set_aside_for(chunk: Chunk) -> Collection[str]:
    """The signatures for which a quarantined chunk was set aside; none when it took its hosts down."""
    failed = {failure.signature for failure in chunk.failed}
    # Failures set a chunk aside while answers are still wanted; a disagreement, once all of them are there.
    return failed | {DISAGREEMENT} if len(chunk.candidates) >= chunk.replicas else failed


def _concerns(chunk: Chunk, round_: Round) -> bool:
    if round_.which is Which.FAILED:
        return chunk.state is ChunkState.QUARANTINED
    if round_.which is Which.SIGNATURE:
        return chunk.state is ChunkState.QUARANTINED and round_.signature in set_aside_for(chunk)
    if round_.which is Which.CHUNKS:
        return chunk.id in round_.chunks
    return True
