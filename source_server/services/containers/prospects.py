"""The live containers as a task or one of its chunks sees them, for explanations and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from source_server.domain.chunk import Chunk
from source_server.domain.eligibility import bar
from source_server.domain.prospects import Prospect
from source_server.domain.task import Task, lacks
from source_server.domain.trust import in_flight_limit
from source_server.services.containers.live import Snapshot
from source_server.stores.database import Stores

MOST_HOSTS = 50  #: hosts whose chunks in flight are counted for one answer


def prospects_of(task: Task, there: Snapshot) -> list[Prospect]:
    """Every live container: what it lacks for the task's job, and whether it takes chunks at all."""
    # Hosts in quarantine are the last resort: they compute where no other fits.
    taking = {one.id for one in there.fitting(task)}
    return [
        Prospect(
            container=one.id,
            life=one.life,
            host=one.host.id,
            account=one.account,
            platform=there.taker(task, one).platform,
            lacks=tuple(missing),
            paused=one.paused,
            quarantined=not missing and one.id not in taking,
            holds=sum(one.held.values()),
        )
        for one in there.containers
        for missing in (lacks(task, one),)
    ]


def for_chunk(stores: Stores, task: Task, chunk: Chunk, there: Snapshot) -> list[Prospect]:
    """The same, with what keeps each from this very chunk; hosts are asked until one of them has room."""
    crowd, containers = there.crowd(task), {one.id: one for one in there.containers}
    if chunk.variant is not None:
        task = replace(task, job=task.job.in_variant(chunk.variant))  # what it lacks for that one counts
    seen = [
        one
        if one.lacks
        else replace(
            one, bar=bar(chunk, there.taker(task, containers[one.container]), task.validation, crowd)
        )
        for one in prospects_of(task, there)
    ]
    full = set(_full_hosts(stores, chunk, [one for one in seen if one.free], there))
    return [replace(one, full=(one.account, one.host) in full) for one in seen]


def _full_hosts(
    stores: Stores, chunk: Chunk, free: Sequence[Prospect], there: Snapshot
) -> Iterator[tuple[str, str]]:
    """Hosts that hold as many chunks as they may, up to the first that does not; the one it is dealt to comes first."""
    dealt_to = chunk.assigned.container if chunk.assigned else None
    order = sorted(free, key=lambda one: one.container != dealt_to)
    hosts = list(dict.fromkeys((one.account, one.host) for one in order))[:MOST_HOSTS]
    records = stores.hosts.read(hosts) if hosts else {}
    for account, host in hosts:
        limit = in_flight_limit(records.get((account, host)), there.slots(account, host))
        if stores.chunks.in_flight(account, host) < limit:
            return
        yield account, host
