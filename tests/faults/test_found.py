"""What the fault run has found, each as small as can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from people import Scientist, Volunteer

from source_server.domain.refusal import Unavailable
from source_server.domain.task import Task
from source_server.services.tasks.upload import ReceiveUpload

pytestmark = pytest.mark.mongo

BODY = (b"a,b\n", b"1,2\n", b"3,4\n")


class Passing:
    """The store of tasks, but for what a test changes in it."""

    def __init__(self, tasks: Any) -> None:
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)


class LosesTheAnswerToTheSeal(Passing):
    """As when the primary dies after a majority has the write, and before it says so."""

    def seal(self, *what: Any, **how: Any) -> bool:
        self._tasks.seal(*what, **how)
        raise Unavailable("The database did not answer in time; send the same request again.")


@pytest.fixture
def waiting(scientist: Scientist, stores: Any) -> Callable[[], Task]:
    """Reads a task that waits for its data."""
    scientist.ok("POST", "/projects", {"name": "sums"})
    made = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]
    return lambda: stores.tasks.find(made)


def test_an_upload_whose_seal_was_answered_by_nobody_keeps_its_chunks(
    stores: Any, waiting: Callable[[], Task]
) -> None:
    receive = ReceiveUpload(replace(stores, tasks=LosesTheAnswerToTheSeal(stores.tasks)))

    with pytest.raises(Unavailable):
        receive(waiting(), "all", "text/csv", iter(BODY))
    again = ReceiveUpload(stores)(waiting(), "all", "text/csv", iter(BODY))

    assert again.complete and again.chunks == 2
    assert len(stores.chunks.read([f"{waiting().id}.0", f"{waiting().id}.1"])) == 2


def test_housekeeping_that_read_the_task_before_the_seal_removes_nothing(
    stores: Any, waiting: Callable[[], Task]
) -> None:
    receive = ReceiveUpload(stores)
    receive(waiting(), "all", "text/csv", iter(BODY))
    sealed = waiting()
    assert sealed.upload is not None
    long_ago: datetime = stores.clock.now() - timedelta(hours=1)
    before = replace(sealed, sealed=False, upload=replace(sealed.upload, complete=False, touched=long_ago))

    receive.clean(before)

    assert len(stores.chunks.read([f"{sealed.id}.0", f"{sealed.id}.1"])) == 2


def test_a_container_that_computed_a_chunk_three_times_may_say_so_three_times(
    scientist: Scientist, volunteer: Callable[..., Volunteer]
) -> None:
    scientist.running(rows=1)
    busy = volunteer()
    attempts = []
    for _ in range(3):  # it loses the lease each time before it delivers
        (chunk,) = busy.claim()
        attempts.append(busy.attempt(chunk))
        busy.ok("POST", "/release", {"chunks": [chunk["id"]]})

    answers = busy.add(*attempts).get_json()["results"]

    assert [one.get("stored") for one in answers] == [True, True, True]
