"""Lays documents into a database as the server itself would have written them, many at once."""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, Holder, Lease
from source_server.domain.container import Container, Host
from source_server.domain.job import Job
from source_server.domain.project import Project
from source_server.domain.task import Task, TaskState, Upload
from source_server.stores.database import Stores

BATCH = 5000


def running_task(
    stores: Stores, *, owner: str = "bench", project: str = "bench", state: TaskState = TaskState.RUNNING
) -> Task:
    """A stored task that may be claimed, without chunks yet; only where no housekeeping runs, which completes it."""
    task = task_of(stores, owner=owner, project=project, state=state)
    stores.tasks.add(task)
    return task


def task_of(
    stores: Stores, *, owner: str = "bench", project: str = "bench", state: TaskState = TaskState.RUNNING
) -> Task:
    """A task that may be claimed once it is stored; its project is there."""
    now = stores.clock.now()
    if stores.projects.find(project) is None:
        stores.projects.add(Project(id=project, owner=owner, created=now))
    return Task(
        id=uuid.uuid4().hex[:16],
        project=project,
        owner=owner,
        name="bench",
        job=Job(action=("/bin/cat",), timeout_s=1.0),  # short: a claim gets what ten minutes suffice for
        created=now,
        state=state,
        started=now,
        sealed=True,
        fields=("a", "b"),
        upload=Upload(id="bench", attempt="bench", complete=True, touched=now),
        dealt=True,  # only in such tasks are assigned chunks looked for
    )


def ready_chunks(task: Task, first: int, count: int) -> Iterator[Chunk]:
    """So many of the task's chunks, dealt to nobody, from the number `first` on."""
    for n in range(first, first + count):
        yield Chunk(
            id=f"{task.id}.{n}",
            project=task.project,
            task=task.id,
            n=n,
            r=random.random(),
            rev=secrets.randbits(62),
            upload="bench",
            input=f'{{"a": "{n}", "b": "{n + 1}"}}',
        )


def add(stores: Stores, chunks: Iterator[Chunk]) -> int:
    """Store chunks; how many."""
    added = 0
    batch: list[Chunk] = []
    for chunk in chunks:
        batch.append(chunk)
        if len(batch) == BATCH:
            stores.chunks.add(batch)
            added, batch = added + BATCH, []
    if batch:
        stores.chunks.add(batch)
    return added + len(batch)


def dealt(chunks: Iterator[Chunk], to: Sequence[Container]) -> Iterator[Chunk]:
    """The same chunks, dealt to these containers in turn."""
    for turn, chunk in enumerate(chunks):
        who = to[turn % len(to)]
        yield rules.assign(chunk, Holder(container=who.id, life=who.life))


def leased(chunks: Iterator[Chunk], by: Sequence[Container], *, each: int = 10) -> Iterator[Chunk]:
    """The same chunks, leased by these containers in turn, under one claim token for each ten."""
    token = ""
    for turn, chunk in enumerate(chunks):
        who = by[turn // each % len(by)]
        token = str(uuid.uuid4()) if turn % each == 0 else token
        lease = Lease(
            token=token,
            container=who.id,
            life=who.life,
            host=who.host.id,
            account=who.account,
            since=who.last_seen,
            until=who.last_seen + timedelta(hours=1),
        )
        yield rules.lease(chunk, lease)


def crowd(stores: Stores, count: int, *, account: str = "bench") -> list[Container]:
    """Live containers, each on a host of its own that may hold as much as the best of hosts."""
    now = stores.clock.now()
    made = [
        Container(
            id=str(uuid.uuid4()),
            host=Host(id=str(uuid.uuid4())),
            account=account,
            life=str(uuid.uuid4()),
            registered=now,
            last_seen=now,
        )
        for _ in range(count)
    ]
    for one in made:
        stores.containers.register(one, secrets.token_hex(16))
        # A newcomer may hold two chunks; this one counts as proved.
        stores.hosts.succeeded(account, one.host.id, 10_000, 1)
    return made
