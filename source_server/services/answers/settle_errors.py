"""What follows from stored failures: their chunk rests, goes back in the queue, or is set aside; each counts once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from source_server.domain import settling
from source_server.domain.attempt import Verdict
from source_server.domain.chunk import Chunk, Failure
from source_server.domain.quarantine import Fleet
from source_server.services.answers.forgive import Forgive
from source_server.services.answers.known_tasks import KnownTasks
from source_server.services.answers.reputation import Reputation
from source_server.services.containers.live import LiveContainers
from source_server.stores.attempts import Stored
from source_server.stores.database import Stores

TRIES = 4  #: times a contended chunk is read anew before housekeeping has to settle it


class SettleErrors:
    """Counts failures against their chunks."""

    def __init__(
        self,
        stores: Stores,
        *,
        known: KnownTasks,
        live: LiveContainers,
        reputation: Reputation,
        forgive: Forgive,
    ) -> None:
        self._stores = stores
        self._forgive = forgive
        self._known = known
        self._live = live
        self._reputation = reputation

    def __call__(self, errors: Sequence[Stored], now: datetime) -> None:
        """Let these failures count, once, and write their verdicts."""
        for error in errors:
            verdict = self._settled(error, now)
            if verdict is not None:
                self._stores.errors.settle([error.id], verdict)
        self._forgive({error.chunk for error in errors if error.bad_data})

    def _settled(self, error: Stored, now: datetime) -> Verdict | None:
        """What became of it; None: the chunk was contended, housekeeping has to look again."""
        who = {"container": error.origin.container, "token": error.token}
        for _ in range(TRIES):
            chunk = self._stores.chunks.read([error.chunk]).get(error.chunk)
            if chunk is None:
                return Verdict.STALE
            if _was_canary(error, chunk):
                self._reputation.canary_failed([error.origin])
            fleet = self._fleet(chunk)
            new = settling.counted_failure(chunk, _failure(error), error.run, **who, now=now, fleet=fleet)
            if new == chunk or self._stores.chunks.apply([(chunk, new)]):
                break
        # As with results: the verdict follows from what a majority has, not from the primary's latest word.
        decided = self._stores.chunks.read([error.chunk], majority=True).get(error.chunk)
        if decided is None:
            return Verdict.STALE
        return settling.failure_verdict(error.id, error.run, decided, **who)

    def _fleet(self, chunk: Chunk) -> Fleet | None:
        task = self._known.read([chunk.task]).get(chunk.task)
        return None if task is None else self._live.now().fleet(task)


def _failure(error: Stored) -> Failure:
    return Failure(
        error=error.id,
        host=error.origin.host,
        account=error.origin.account,
        signature=error.signature or "",
        bad_data=error.bad_data,
    )


def _was_canary(error: Stored, chunk: Chunk) -> bool:
    return any(held.canary and held.container == error.origin.container for held in chunk.leases)
