"""`/heartbeat`: a container says that it lives and what it holds, and hears what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.chunk import OPEN_STATES, Chunk
from source_server.domain.container import Container, ContainerState
from source_server.domain.refusal import LifeEnded
from source_server.domain.task import Task
from source_server.domain.timing import lease_until
from source_server.services.containers.give_back import GiveBack
from source_server.stores.database import Stores


@dataclass(frozen=True, kw_only=True)
class BeatAnswer:
    """`drop`: stop, not needed. `lost`: do not start; running, finish. `claim_again`: ask anew with this token."""

    drop: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    claim_again: tuple[str, ...] = ()


class Beat:
    """One write to the container's own record, and the little that follows from what it lists."""

    def __init__(self, stores: Stores, give_back: GiveBack, *, beat_s: float) -> None:
        self._stores = stores
        self._give_back = give_back
        self._beat_s = beat_s

    def __call__(
        self,
        container: Container,
        *,
        life: str,
        beat: int,
        held: Mapping[str, int],
        started: Sequence[str],
        paused: bool,
        cannot: Mapping[str, str] | None = None,
    ) -> BeatAnswer:
        """Raises LifeEnded; a beat that is late or repeated changes nothing and hears nothing new."""
        require_life(container, life)
        now = self._stores.clock.now()
        noted = self._stores.containers.beat(
            container.id, life, beat=beat, held=held, paused=paused, cannot=cannot, now=now
        )
        if not noted:
            current = self._stores.containers.find(container.id)
            require_life(current, life)
            return BeatAnswer()
        unlisted = set(container.held) - set(held)
        chunks = self._stores.chunks.under_token([*unlisted, *held])
        self._give_back.tokens(container, chunks, unlisted)
        self._restart_deadlines(container, chunks, set(started), now)
        drop, lost = self._gone(container, chunks, started)
        return BeatAnswer(drop=drop, lost=lost, claim_again=_miscounted(container, chunks, held))

    def _restart_deadlines(
        self, container: Container, chunks: Iterable[Chunk], started: set[str], now: datetime
    ) -> None:
        new = [one for one in chunks if one.id in started and _waits(one, container)]
        if not new:
            return
        tasks = self._stores.tasks.read(sorted({one.task for one in new}))
        changes = [(one, self._started(one, container, tasks[one.task], now)) for one in new]
        # A chunk that moved on meanwhile is caught by the next beat.
        self._stores.chunks.apply(changes, quick=True)

    def _started(self, chunk: Chunk, container: Container, task: Task, now: datetime) -> Chunk:
        until = lease_until(now, timeout_s=task.job.timeout_s, place=1, beat_s=self._beat_s)
        return rules.start(chunk, container=container.id, now=now, until=until)

    def _gone(
        self, container: Container, leased: Iterable[Chunk], started: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        held = {one.id for one in leased if _holds(one, container)}
        missing = [chunk_id for chunk_id in started if chunk_id not in held]
        found = self._stores.chunks.read(missing, majority=True) if missing else {}
        needed = {one.id for one in found.values() if one.result is None and one.state in OPEN_STATES}
        drop = tuple(chunk_id for chunk_id in missing if chunk_id not in needed)
        return drop, tuple(chunk_id for chunk_id in missing if chunk_id in needed)


def require_life(container: Container | None, life: str) -> None:
    """Raises LifeEnded unless the container is live, in this very life."""
    if container is None or container.state is not ContainerState.LIVE or container.life != life:
        raise LifeEnded("This life of the container has ended; register again.")


def _holds(chunk: Chunk, container: Container) -> bool:
    return any(lease.container == container.id for lease in chunk.leases)


def _waits(chunk: Chunk, container: Container) -> bool:
    return any(lease.container == container.id and lease.started is None for lease in chunk.leases)


def _miscounted(container: Container, chunks: Iterable[Chunk], held: Mapping[str, int]) -> tuple[str, ...]:
    counted = dict.fromkeys(held, 0)
    for one in chunks:
        for lease in one.leases:
            if lease.container == container.id and lease.token in counted:
                counted[lease.token] += 1
    return tuple(token for token, count in held.items() if counted[token] != count)
