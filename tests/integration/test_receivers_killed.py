"""A housekeeper is killed (SIGKILL's way: nothing of it runs any more) before each of its writes: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from people import Scientist

KILLED = 9
LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=1)

#: Handles events, and ends at once before its write number N.
PROGRAM = """
import os, sys
from source_server.stores import gate
from source_server.stores.database import open_stores
from source_server.housekeeping import Housekeeper

uri, database, last, step = sys.argv[1:]
stores = open_stores(uri, database, application="killed")
keeper = Housekeeper(stores, beat_s=20.0)
left = int(last)

def counted(write):
    def call(*args, **rest):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return write(*args, **rest)
    return call

for name in ("insert", "insert_many", "put_if_absent", "update_one", "update_many", "guarded", "delete_many"):
    setattr(gate.Gate, name, counted(getattr(gate.Gate, name)))
getattr(keeper, step)()
"""


def killed_before(number: int, uri: str, raw: Any, step: str) -> bool:
    """Whether a housekeeper's step came to its write of this number, where it was killed."""
    argv = [sys.executable, "-c", PROGRAM, uri, raw.name, str(number), step]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, KILLED), done.stderr
    return done.returncode == KILLED


def time_passes(raw: Any) -> None:
    """Whoever was killed has been silent for long."""
    raw.events.update_many({"state": "handling"}, {"$set": {"touched": LONG_AGO}})
    raw.events.update_many({"state": "new"}, {"$set": {"not_before": None}})
    raw.tasks.update_many({"upload.complete": False}, {"$set": {"upload.touched": LONG_AGO}})


def rows(raw: Any, task: str) -> list[Any]:
    return [json.loads(one["input"]) for one in raw.chunks.find({"task": task}, sort=[("n", 1)])]


def test_whatever_write_a_housekeeper_dies_before_the_event_becomes_its_one_task(
    app: Any, scientist: Scientist, stores: Any, raw: Any, mongo_uri: str
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
        killed = killed_before(number, mongo_uri, raw, "events")
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
    scientist: Scientist, stores: Any, raw: Any, mongo_uri: str, step: str
) -> None:
    from source_server.housekeeping import Housekeeper

    scientist.ok("POST", "/projects", {"name": "nights"})
    body = {"kind": "schedule", "cron": "0 0 * * *", "template": {"action": ["/bin/echo", "{planned}"]}}
    keeper, number = Housekeeper(stores, beat_s=20.0), 0

    while True:
        way = scientist.ok("POST", "/projects/nights/receivers", body)
        since = datetime.now(timezone.utc) - timedelta(days=2)
        raw.receivers.update_one({"_id": way["id"]}, {"$set": {"planned": since, "next_due": since}})
        killed = killed_before(number, mongo_uri, raw, step)
        keeper.schedules()

        assert raw.events.count_documents({"receiver": way["id"]}) == 1
        number += 1
        if not killed:
            break

    assert number >= 3
