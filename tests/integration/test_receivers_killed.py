"""A housekeeper is killed (SIGKILL's way: nothing of it runs any more) before each of its writes: nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from people import Scientist

LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=1)


@pytest.fixture(scope="module")
def keepers() -> Iterator[Forks]:
    """Housekeepers in processes of their own."""
    forks = Forks(Path(__file__).parent, "dying_keeper")
    yield forks
    forks.close()


@pytest.fixture
def killed_before(keepers: Forks, mongo_uri: str, raw: Any, tmp_path: Path) -> Callable[[int, str], bool]:
    """Whether a housekeeper's step came to its write of this number, where it was killed."""

    def tried(number: int, step: str) -> bool:
        with (tmp_path / "log").open("a") as log:
            said, _ = keepers.start(mongo_uri, raw.name, str(number), step, stderr=log).communicate()
        told = (tmp_path / "log").read_text()
        assert "Traceback" not in told, told
        return "done" not in said

    return tried


def time_passes(raw: Any) -> None:
    """Whoever was killed has been silent for long."""
    raw.events.update_many({"state": "handling"}, {"$set": {"touched": LONG_AGO}})
    raw.events.update_many({"state": "new"}, {"$set": {"not_before": None}})
    raw.tasks.update_many({"upload.complete": False}, {"$set": {"upload.touched": LONG_AGO}})


def rows(raw: Any, task: str) -> list[Any]:
    return [json.loads(one["input"]) for one in raw.chunks.find({"task": task}, sort=[("n", 1)])]


def test_whatever_write_a_housekeeper_dies_before_the_event_becomes_its_one_task(
    app: Any, scientist: Scientist, stores: Any, raw: Any, killed_before: Callable[[int, str], bool]
) -> None:
    from source_server.housekeeping import Housekeeper

    scientist.ok("POST", "/projects", {"name": "sums"})
    template = {"action": ["/bin/echo", "{a}"], "validation": {"quorum": 2}}
    way = scientist.ok("POST", "/projects/sums/receivers", {"kind": "http", "template": template})
    data, keeper, number, kills = [{"a": n} for n in range(3)], Housekeeper(stores, beat_s=20.0), 0, 0

    while True:
        body = {"rows": data, "id": f"after-{number}"}
        sent = app.test_client().post(
            way["address"], json=body, headers={"Authorization": f"Bearer {way['secret']}"}
        )
        assert sent.status_code == 202
        killed = killed_before(number, "events")
        time_passes(raw)
        keeper.events()
        time_passes(raw)
        keeper.events()

        event = scientist.ok("GET", "/projects/sums/events")["events"][0]
        assert (event["state"], event["task"]) == ("done", f"after-{number}"), (number, event)
        assert rows(raw, event["task"]) == data, number
        assert scientist.ok("GET", f"/tasks/{event['task']}")["state"] == "running"
        number, kills = number + 1, kills + killed
        if not killed:
            break

    assert kills >= 7, "it takes an event, makes a task, uploads, seals, starts it, and notes that it is done"
    assert len(scientist.ok("GET", "/tasks")["tasks"]) == number


@pytest.mark.parametrize("step", ["schedules"])
def test_whatever_write_a_housekeeper_dies_before_a_planned_time_is_one_event(
    scientist: Scientist, stores: Any, raw: Any, killed_before: Callable[[int, str], bool], step: str
) -> None:
    from source_server.housekeeping import Housekeeper

    scientist.ok("POST", "/projects", {"name": "nights"})
    body = {"kind": "schedule", "cron": "0 0 * * *", "template": {"action": ["/bin/echo", "{planned}"]}}
    keeper, number = Housekeeper(stores, beat_s=20.0), 0

    while True:
        way = scientist.ok("POST", "/projects/nights/receivers", body)
        since = datetime.now(timezone.utc) - timedelta(days=2)
        raw.receivers.update_one({"_id": way["id"]}, {"$set": {"planned": since, "next_due": since}})
        killed = killed_before(number, step)
        keeper.schedules()

        assert raw.events.count_documents({"receiver": way["id"]}) == 1
        number += 1
        if not killed:
            break

    assert number >= 3
