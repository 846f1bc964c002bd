"""Leases and assignments go back: released, left behind by an ended life, or past their deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from datetime import datetime, timedelta
from itertools import chain

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, Holder, Lease
from source_server.domain.container import Container, ContainerState
from source_server.services.containers.dealt import dealt_tasks
from source_server.stores.database import Stores

BATCH = 1000  #: chunks looked at in one go
#: Chunks given back while a container waits for its answer; the rest is housekeeping's.
IN_REQUEST = 5 * BATCH
TOKENS = 20  #: claim tokens looked at in one go


#: told the account and host whose leases came back uncomputed: fewer may be in flight there
CameBack = Callable[[str, str], None]


class GiveBack:
    """Pulls single leases off chunks and offers what they held again."""

    def __init__(self, stores: Stores, came_back: CameBack = lambda account, host: None) -> None:
        self._stores = stores
        self._came_back = came_back

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

    def life(
        self,
        container_id: str,
        life: str,
        *,
        host: str | None = None,
        lost: bool = True,
        most: int | None = None,
    ) -> int:
        """A life has ended: what it held or was dealt goes back, all or at most so much of it; how many chunks.

        What remains, or is leased to the life by a claim that was under way, is left to `ended_lives`.
        """
        dealt = self._unassign(Holder(container=container_id, life=life), self._dealt_tasks())
        returned = 0
        for count in chain(dealt, self._pull_lives({life}, host, lost=lost)):
            returned += count
            if most is not None and returned >= most:
                break
        return returned

    def leave(self, container: Container, next_life: str) -> int:
        """A container says goodbye; its key ends and what it held goes back."""
        current: Container | None = container
        while current is not None and current.state is ContainerState.LIVE:
            # Another beat of it may come in between: judge anew until it is gone.
            if self._stores.containers.end_life(
                current, ContainerState.LEFT, next_life=next_life, forget_key=True
            ):
                return self.life(current.id, current.life, host=current.host.id, lost=False, most=IN_REQUEST)
            current = self._stores.containers.find(container.id)
        return 0

    def expired(self, now: datetime) -> int:
        """Leases past their deadline go back; how many chunks."""
        late = self._stores.chunks.expired(now, limit=BATCH)
        return self._pull(late, lambda lease: lease.until < now, lost=True)

    def ended_lives(self) -> int:
        """Whatever belongs to a life that is no longer current goes back; how many chunks."""
        # Holders first, living ones second: a life that begins in between is in the second list only.
        leasing, tasks = self._stores.chunks.leased_lives(), self._dealt_tasks()
        dealt = {one for task in tasks for one in self._stores.chunks.dealt_lives(task)}
        living = self._stores.containers.live_lives()
        holders = [Holder(container=one, life=life) for one, life in dealt if life not in living]
        unassigned = sum(sum(self._unassign(holder, tasks)) for holder in holders)
        ended = leasing - living
        return unassigned + (sum(self._pull_lives(ended, None, lost=True)) if ended else 0)

    def unlisted(self, beat_s: float) -> int:
        """What live containers have leased, but no longer list: a crash within a beat, or a late duplicate of a
        claim, left it. Two beats must have had the time to list it; how many chunks."""
        out = self._stores.chunks.tokens_out()
        holders = {one.life: one for one in self._stores.containers.live()} if out else {}

        def is_forgotten(life: str, token: str, since: datetime) -> bool:
            holder = holders.get(life)
            if holder is None or token in holder.held:
                return False
            return since < holder.last_seen - timedelta(seconds=2 * beat_s)

        forgotten = sorted(
            {token for (life, token), since in out.items() if is_forgotten(life, token, since)}
        )
        returned = 0
        for begin in range(0, len(forgotten), TOKENS):
            chunks = self._stores.chunks.under_token(forgotten[begin : begin + TOKENS])
            returned += self._pull(
                chunks, lambda lease: is_forgotten(lease.life, lease.token, lease.since), lost=False
            )
        return returned

    def _dealt_tasks(self) -> list[str]:
        """The tasks that may have assigned chunks, with their gates open or not."""
        return dealt_tasks(self._stores)

    def _unassign(self, holder: Holder, tasks: Sequence[str]) -> Iterator[int]:
        """Take what was dealt to a life back, batch by batch."""
        while count := self._stores.chunks.unassign(tasks, holder, limit=BATCH):
            yield count

    def _pull_lives(self, lives: Set[str], host: str | None, *, lost: bool) -> Iterator[int]:
        """Take what these lives have leased back, batch by batch."""
        while leased := self._stores.chunks.leased(lives, host=host, limit=BATCH):
            # Each round pulls at least one, or another process is at it just now; the sweep will look again.
            count = self._pull(leased, lambda lease: lease.life in lives, lost=lost, held_against=lost)
            if not count:
                return
            yield count

    def _pull(
        self,
        chunks: Iterable[Chunk],
        which: Callable[[Lease], bool],
        *,
        lost: bool,
        held_against: bool = True,
    ) -> int:
        changes, holders = [], set[tuple[str, str]]()
        for old in chunks:
            new = old
            for lease in old.leases:
                if which(lease):
                    holders.add((lease.account, lease.host))
                    new = rules.give_back(new, container=lease.container, token=lease.token, lost=lost)
            if new is not old:
                changes.append((old, new))
        returned = 0
        for begin in range(0, len(changes), BATCH):
            returned += len(self._stores.chunks.apply(changes[begin : begin + BATCH], quick=True))
        if returned and held_against:
            for account, host in sorted(holders):
                self._came_back(account, host)
        return returned
