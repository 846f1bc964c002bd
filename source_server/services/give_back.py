"""Leases and assignments go back: released, left behind by an ended life, or past their deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from source_server.domain import chunk as rules
from source_server.domain.chunk import Chunk, Holder, Lease
from source_server.domain.container import Container, ContainerState
from source_server.stores.database import Stores

BATCH = 1000  #: chunks looked at in one go


class GiveBack:
    """Pulls single leases off chunks and offers what they held again."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def chunks(self, container: Container, chunk_ids: Sequence[str]) -> int:
        """A container gives these chunks back; how many it held."""
        found = self._stores.chunks.read(chunk_ids)
        return self._pull(found.values(), lambda lease: lease.container == container.id, lost=False)

    def tokens(self, container: Container, chunks: Iterable[Chunk], tokens: set[str]) -> int:
        """A beat no longer lists these claim tokens: what they held of `chunks` goes back."""
        mine = (one for one in chunks if any(lease.token in tokens for lease in one.leases))
        return self._pull(
            mine, lambda lease: lease.container == container.id and lease.token in tokens, lost=False
        )

    def life(self, container_id: str, life: str, *, lost: bool = True) -> int:
        """A life has ended: everything it held or was dealt goes back; how many chunks."""
        tasks = [task.id for task in self._stores.tasks.unfinished()]
        unassigned = self._stores.chunks.unassign_all(tasks, Holder(container=container_id, life=life))
        leased = self._stores.chunks.leased(life)
        return unassigned + self._pull(leased, lambda lease: lease.life == life, lost=lost)

    def leave(self, container: Container, next_life: str) -> int:
        """A container says goodbye; its key ends and what it held goes back."""
        current: Container | None = container
        while current is not None and current.state is ContainerState.LIVE:
            # Another beat of it may come in between: judge anew until it is gone.
            if self._stores.containers.end_life(
                current, ContainerState.LEFT, next_life=next_life, forget_key=True
            ):
                return self.life(current.id, current.life, lost=False)
            current = self._stores.containers.find(container.id)
        return 0

    def expired(self, now: datetime) -> int:
        """Leases past their deadline go back; how many chunks."""
        late = self._stores.chunks.expired(now, limit=BATCH)
        return self._pull(late, lambda lease: lease.until < now, lost=True)

    def ended_lives(self) -> int:
        """Whatever belongs to a life that is no longer current goes back; how many chunks."""
        # Holders first, living ones second: a life that begins in between is in the second list only.
        leasing = self._stores.chunks.leased_lives()
        tasks = [task.id for task in self._stores.tasks.unfinished()]
        dealt = self._stores.chunks.assigned_to(tasks)
        living = self._stores.containers.live_lives()
        returned = 0
        for container, life in dealt:
            if life not in living:
                holder = Holder(container=container, life=life)
                returned += self._stores.chunks.unassign_all(tasks, holder)
        for life in leasing - living:
            leased = self._stores.chunks.leased(life)
            returned += self._pull(leased, lambda lease, ended=life: lease.life == ended, lost=True)  # type: ignore[misc]
        return returned

    def unlisted(self, beat_s: float) -> int:
        """What live containers have leased, but no longer list: a crash within a beat, or a late duplicate of a
        claim, left it. Two beats must have had the time to list it; how many chunks."""
        leased = self._stores.chunks.leased()
        holders = {one.life: one for one in self._stores.containers.live()} if leased else {}

        def forgotten(lease: Lease) -> bool:
            holder = holders.get(lease.life)
            if holder is None or lease.token in holder.held:
                return False
            return lease.since < holder.last_seen - timedelta(seconds=2 * beat_s)

        return self._pull(leased, forgotten, lost=False)

    def _pull(self, chunks: Iterable[Chunk], which: Callable[[Lease], bool], *, lost: bool) -> int:
        changes = []
        for old in chunks:
            new = old
            for lease in old.leases:
                if which(lease):
                    new = rules.give_back(new, container=lease.container, token=lease.token, lost=lost)
            if new is not old:
                changes.append((old, new))
        returned = 0
        for begin in range(0, len(changes), BATCH):
            returned += len(self._stores.chunks.apply(changes[begin : begin + BATCH], quick=True))
        return returned
