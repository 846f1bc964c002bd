"""One document that cannot be worked on stops none of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from source_server.domain.refusal import Unavailable
from source_server.housekeeping import Housekeeper
from source_server.services.each import alone, together

pytestmark = pytest.mark.mongo


@pytest.fixture
def keeper(stores: Any) -> Housekeeper:
    return Housekeeper(stores, beat_s=20.0)


def all_but_complete(scientist: Any, volunteer: Callable[..., Any], raw: Any) -> list[str]:
    """Two tasks that only housekeeping has yet to complete, the one to be poisoned first."""
    tasks = []
    for name in ("first", "second"):
        task = scientist.running(1, project=name, notify=[{"email": "ada@lab.example"}])
        who = volunteer()
        who.add(who.attempt(who.claim()[0]))
        before = {"state": "running", "outcome": None, "ended": None, "told": True}
        raw.tasks.update_one({"_id": task}, {"$set": before})
        tasks.append(task)
    return sorted(tasks)


@pytest.mark.parametrize(
    "poison",
    [{"job.result": {"kind": "hologram"}}, {"max_failed": "many"}, {"appending": {"no": "sense"}}],
    ids=["unknown kind", "no number", "no batch"],
)
def test_a_task_that_nobody_understands_does_not_keep_another_from_completing(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, poison: dict[str, Any]
) -> None:
    bad, good = all_but_complete(scientist, volunteer, raw)
    raw.tasks.update_one({"_id": bad}, {"$set": poison})

    keeper.tasks()

    assert raw.tasks.find_one({"_id": good})["state"] == "complete"


def test_it_does_not_keep_another_from_being_handed_out(scientist: Any, volunteer: Any, raw: Any) -> None:
    bad, good = (scientist.running(1, project=name) for name in ("first", "second"))
    raw.tasks.update_one({"_id": bad}, {"$set": {"job.result": {"kind": "hologram"}}})

    assert [one["id"].partition(".")[0] for one in volunteer().claim()] == [good]


@pytest.mark.parametrize("step", ["notices", "limits", "removals", "rounds", "reactions"])
def test_nor_from_the_other_steps(
    scientist: Any, volunteer: Any, keeper: Housekeeper, raw: Any, step: str
) -> None:
    bad, good = all_but_complete(scientist, volunteer, raw)
    marks = {
        "notices": {"told": False, "state": "complete", "outcome": "succeeded"},
        "limits": {"limits": {"cpu_s": 1}, "ends_as": "failed"},
        "removals": {"deleting": raw.tasks.find_one({"_id": good})["created"], "state": "complete"},
        "rounds": {"round": {"no": "sense"}},
        "reactions": {"reacting": True, "state": "complete", "outcome": "succeeded"},
    }
    raw.tasks.update_one({"_id": bad}, {"$set": {**marks[step], "job.result": {"kind": "hologram"}}})
    if step in ("notices", "removals", "reactions"):
        raw.tasks.update_one({"_id": good}, {"$set": marks[step]})

    getattr(keeper, step)()

    after = raw.tasks.find_one({"_id": good})
    assert step != "notices" or after["told"]
    assert step != "removals" or not raw.chunks.count_documents({"task": good})
    assert step != "reactions" or not after["reacting"]


def test_what_is_the_same_with_all_others_ends_the_step() -> None:
    with pytest.raises(Unavailable), alone("it goes wrong"):
        raise Unavailable("not now")

    with alone("it goes wrong"):
        raise ValueError("a bug")


def test_together_until_it_fails_and_then_each_alone() -> None:
    taken = []

    def step(items: Any) -> int:
        if 3 in items:
            raise ValueError("three")
        taken.append(list(items))
        return len(items)

    assert together("no", step, [1, 2]) == 2
    assert together("no", step, [1, 2, 3, 4]) == 3
    assert taken == [[1, 2], [1], [2], [4]]
