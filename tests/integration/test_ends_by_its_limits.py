"""A task that its limits end between two looks at it has the outcome that they said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from people import Scientist

from source_server.domain import transitions as rules
from source_server.domain.task import TaskOutcome
from source_server.services.tasks.complete import Complete


class LookedAtLate:
    """The store of chunks, as a process sees it that sleeps before its first look at them."""

    def __init__(self, chunks: Any, meanwhile: Callable[[], None]) -> None:
        self._chunks, self._meanwhile = chunks, meanwhile

    def any_in(self, *what: Any) -> bool:
        self._meanwhile()
        return bool(self._chunks.any_in(*what))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


def test_who_read_a_task_before_its_limits_ended_it_does_not_call_it_succeeded(
    scientist: Scientist, stores: Any
) -> None:
    task = scientist.running(3)

    def limits_end_it() -> None:
        if stores.limited.end(stores.tasks.find(task), TaskOutcome.FAILED, "It has used up its cpu_hours."):
            found = stores.chunks.open(task, limit=10)
            stores.chunks.apply([(one, rules.cancel(one)) for one in found])

    Complete(replace(stores, chunks=LookedAtLate(stores.chunks, limits_end_it))).if_done(task)
    Complete(stores).if_done(task)

    ended = scientist.ok("GET", f"/tasks/{task}")
    assert (ended["state"], ended["outcome"]) == ("complete", "failed")
    assert ended["chunks"] == {"total": 3, "cancelled": 3}
