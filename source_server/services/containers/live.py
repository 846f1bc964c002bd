"""Who is there: the live containers as they were at most two seconds ago, and what they could compute.

A hint for choices (whom to ask, when to give up on a chunk); no write is guarded by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from source_server.domain.container import Container
from source_server.domain.eligibility import Crowd, Taker, platform
from source_server.domain.quarantine import Fleet
from source_server.domain.reactions import is_preferred
from source_server.domain.task import Task, fits, runnable_variants
from source_server.domain.trust import is_established
from source_server.stores.database import Stores

FRESH_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The live containers at one moment, with what their accounts and hosts are known for."""

    at: datetime
    containers: tuple[Container, ...] = ()
    established: frozenset[str] = frozenset()  #: accounts with a long record of agreement
    quarantined: frozenset[tuple[str, str]] = frozenset()  #: (account, host) that get canaries only
    _crowds: dict[str, Crowd] = field(default_factory=dict, compare=False)  #: by task, made once a snapshot

    def fitting(self, task: Task) -> list[Container]:
        """Those that can run the task's job; paused ones and quarantined hosts only where there is no other."""
        fitting = [one for one in self.containers if fits(task, one)]
        sound = [one for one in fitting if (one.account, one.host.id) not in self.quarantined]
        return [one for one in sound if not one.paused] or sound or fitting

    def fleet(self, task: Task) -> Fleet:
        """Hosts and accounts of those; of a reaction, those that it is kept for, while there are any."""
        fitting = self.fitting(task)
        found = [one for one in fitting if is_preferred(task, one)] or fitting
        return Fleet(
            hosts=frozenset(one.host.id for one in found), accounts=frozenset(one.account for one in found)
        )

    def taker(self, task: Task, container: Container) -> Taker:
        """A container as a chunk of the task sees it."""
        return Taker(
            container=container.id,
            host=container.host.id,
            account=container.account,
            platform=platform(task.validation, container.labels),
            established=container.account in self.established,
            variants=runnable_variants(task.job, container) if task.job.variants else (),
            preferred=is_preferred(task, container),
        )

    def crowd(self, task: Task) -> Crowd:
        """What a chunk's eligibility has to know of the others."""
        if task.id not in self._crowds:
            self._crowds[task.id] = Crowd(takers=tuple(self.taker(task, one) for one in self.fitting(task)))
        return self._crowds[task.id]

    def slots(self, account: str, host: str) -> int:
        """How many live containers this account has on that host; one at least, for it may have come just now."""
        return max(1, sum(one.account == account and one.host.id == host for one in self.containers))


class LiveContainers:
    """Reads the containers when the last reading is older than two seconds; one for each process."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._last: Snapshot | None = None

    def now(self) -> Snapshot:
        """The snapshot, made anew if it is too old."""
        with self._lock:
            instant = self._monotonic()
            if self._last is None or self._read_at is None or instant - self._read_at > FRESH_S:
                self._last = self._read()
                self._read_at = instant
            return self._last

    def forget(self) -> None:
        """Have the next question read anew: somebody came or went."""
        with self._lock:
            self._read_at = None

    def _read(self) -> Snapshot:
        containers = tuple(self._stores.containers.live(with_held=False))
        now = self._stores.clock.now()
        standing = self._stores.accounts.standing({one.account for one in containers})
        return Snapshot(
            at=now,
            containers=containers,
            established=frozenset(one for one, record in standing.items() if is_established(record, now)),
            quarantined=frozenset((one.account, one.host) for one in self._stores.hosts.quarantined()),
        )
