"""What only the primary has, a failover may take back: no reaction ends and no chunk goes because of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from faults.replica_set import DATABASE, ReplicaSet, three_members
from pymongo.write_concern import WriteConcern

from source_server.domain.chunk import Chunk
from source_server.domain.job import Job
from source_server.domain.reactions import Reaction, companion
from source_server.domain.refusal import Unavailable
from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.domain.validation import Validation
from source_server.services.files.blobs import Blobs
from source_server.services.reactions.react import React
from source_server.services.reactions.summary import Summary
from source_server.services.tasks.complete import Complete
from source_server.services.tasks.watch_limits import WatchLimits
from source_server.stores.connection import connect
from source_server.stores.database import Stores, migrate, stores_of

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
JOB = Job(action=("/bin/report",))
RUNNING = Task(
    id="t",
    project="p",
    owner="ada",
    name="t",
    job=JOB,
    created=NOW,
    success=JOB,
    after=JOB,
    state=TaskState.RUNNING,
    started=NOW,
    sealed=True,
    upload=Upload(id="u", attempt="u", complete=True, chunks=1, rows=1),
)
ENDED = replace(RUNNING, state=TaskState.COMPLETE, outcome=TaskOutcome.SUCCEEDED, reacting=True)
SUCCESS = companion(ENDED, Reaction.SUCCESS, Validation(), None, NOW)


@pytest.fixture(scope="module")
def members(mongod_binary: Path) -> Iterator[ReplicaSet]:
    """Three, of which two can be kept from what the first one writes."""
    with three_members(mongod_binary) as found:
        yield found


@pytest.fixture
def opened(members: ReplicaSet) -> Iterator[Stores]:
    """The stores of an empty database."""
    database = connect(members.uri, DATABASE, application="tests")
    database.client.drop_database(DATABASE)
    made = stores_of(database)
    migrate(made)
    yield made
    database.client.close()


@pytest.fixture
def alone(members: ReplicaSet) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """Writes that the primary alone has, from then on: of a task's id, what is set. Answers the documents' database."""
    primary = members.find_primary()
    assert primary is not None
    with members.database() as database:

        def write(task: str, change: dict[str, Any]) -> Any:
            members.hold_replication(held=True, besides=primary)
            database.tasks.with_options(write_concern=WriteConcern(w=1)).update_one(
                {"_id": task}, {"$set": change}
            )
            return database

        yield write
        members.hold_replication(held=False, besides=primary)


def with_chunk(stores: Stores, task: Task) -> None:
    stores.chunks.add(
        [Chunk(id=f"{task.id}.0", project="p", task=task.id, n=0, r=0.5, rev=1, upload="u", wanted=1)]
    )
    stores.tasks.add(task)


@pytest.mark.parametrize("change", [{"reacting": False}, {"rounds": 1, "reacting": False}])
def test_a_reaction_is_waited_for_until_a_majority_knows_that_it_is_not(
    opened: Stores, alone: Callable[..., Any], change: dict[str, Any]
) -> None:
    opened.tasks.add(ENDED)
    opened.tasks.add(SUCCESS)

    database = alone("t", change)
    with suppress(Unavailable):
        React(opened, Summary(opened, Blobs(opened))).tend(SUCCESS)

    assert database.tasks.find_one({"_id": SUCCESS.id})["cancelled"] is False


def test_no_chunk_is_cancelled_before_a_majority_knows_that_its_task_is(
    opened: Stores, alone: Callable[..., Any]
) -> None:
    with_chunk(opened, RUNNING)

    database = alone("t", {"cancelled": True})
    with suppress(Unavailable):
        Complete(opened).sweep_cancelled(replace(RUNNING, cancelled=True))

    assert database.chunks.find_one({"_id": "t.0"})["state"] == "ready"


def test_no_chunk_is_cancelled_before_a_majority_knows_that_the_limits_end_its_task(
    opened: Stores, alone: Callable[..., Any]
) -> None:
    with_chunk(opened, RUNNING)

    database = alone("t", {"ends_as": "failed"})
    with suppress(Unavailable):
        WatchLimits(opened, Complete(opened)).sweep(replace(RUNNING, ends_as=TaskOutcome.FAILED))

    assert database.chunks.find_one({"_id": "t.0"})["state"] == "ready"
