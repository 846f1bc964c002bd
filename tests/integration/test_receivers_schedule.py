"""Work by the clock: each planned time is one task, whoever looks and however often; clocks are handed in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from people import Scientist

ECHO = {"action": ["/bin/echo", "{planned}"]}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def planned_times(expression: str, zone: str, first: str, last: str) -> list[str]:
    """All planned times from `first` to `last` (UTC), as a housekeeper finds them that looks every minute."""
    from source_server.domain.cron import latest
    from source_server.receivers.schedule import _next_time

    found, after, now = [], at(first), at(first)
    while now <= at(last):
        planned = latest(_next_time(expression, zone), after=after, now=now)
        if planned is not None:
            found.append(f"{planned:%m-%dT%H:%M}")
            after = planned
        now += timedelta(minutes=1)
    return found


# --- when


def test_a_nightly_time_that_the_spring_leaves_out_comes_an_hour_later_and_only_once() -> None:
    found = planned_times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", "2026-03-30T12:00")

    assert found == ["03-28T01:30", "03-29T01:30", "03-30T00:30"]


def test_a_nightly_time_that_the_autumn_shows_twice_comes_once() -> None:
    found = planned_times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-26T12:00")

    assert found == ["10-25T00:30", "10-26T01:30"]


def test_an_hourly_time_comes_in_every_hour_that_there_is_on_both_days() -> None:
    spring = planned_times("30 * * * *", "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T03:00")
    autumn = planned_times("30 * * * *", "Europe/Berlin", "2026-10-24T23:00", "2026-10-25T03:00")

    assert spring == ["03-28T23:30", "03-29T00:30", "03-29T01:30", "03-29T02:30"]
    assert autumn == ["10-24T23:30", "10-25T00:30", "10-25T01:30", "10-25T02:30"]


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon,tue,wed,thu,fri"),
        ("mon-sun", "sun,mon,tue,wed,thu,fri,sat"),
        ("6,0", "sun,sat"),
        ("5-7", "sun,fri,sat"),
        ("*/3", "sun,wed,sat"),
        ("1-5/2", "mon,wed,fri"),
        ("SUN", "sun"),
    ],
)
def test_days_of_the_week_are_those_of_cron(weekday: str, days: str) -> None:
    from source_server.domain.cron import normalised

    assert normalised(f"0 0 * * {weekday}") == f"0 0 * * {days}"


def test_sunday_is_a_sunday() -> None:
    [found] = planned_times("0 6 * * 0", "UTC", "2026-11-16T00:00", "2026-11-22T12:00")

    assert found == "11-22T06:00"
    assert at("2026-11-22").strftime("%A") == "Sunday"


@pytest.mark.parametrize(
    ("expression", "gap"),
    [("* * * * *", 400), ("* * * 1 *", 300), ("0 0 29 2 *", 1500), ("0 6 1 * *", 90)],
)
def test_the_latest_time_after_a_long_downtime_is_found_without_going_through_them_all(
    expression: str, gap: int
) -> None:
    from source_server.domain.cron import latest
    from source_server.receivers.schedule import _next_time

    asked = 0
    find = _next_time(expression, "UTC")

    def counted(instant: datetime) -> datetime | None:
        nonlocal asked
        asked += 1
        return find(instant)

    now = at("2028-11-22T12:00:30")
    planned = latest(counted, after=now - timedelta(days=gap), now=now)

    assert planned is not None
    assert find(planned + timedelta(seconds=1)) > now
    assert asked < 50_000


# --- what


@pytest.fixture
def keeper(stores: Any) -> Any:
    """A housekeeper, whose steps a test calls."""
    from source_server.housekeeping import Housekeeper

    return Housekeeper(stores, beat_s=20.0)


@pytest.fixture
def schedule(scientist: Scientist, raw: Any) -> Callable[..., dict[str, Any]]:
    """Makes a schedule in the project `nights` that has been followed up to so long ago."""
    scientist.ok("POST", "/projects", {"name": "nights"})

    def make(cron: str, *, silent: timedelta, **settings: Any) -> dict[str, Any]:
        body = {"kind": "schedule", "cron": cron, "template": ECHO, **settings}
        made = dict(scientist.ok("POST", "/projects/nights/receivers", body))
        since = datetime.now(timezone.utc) - silent
        raw.receivers.update_one({"_id": made["id"]}, {"$set": {"planned": since, "next_due": since}})
        return made

    return make


def events(scientist: Scientist) -> list[dict[str, Any]]:
    return list(scientist.ok("GET", "/projects/nights/events")["events"])


def test_after_a_downtime_only_the_latest_planned_time_becomes_a_task(
    scientist: Scientist, keeper: Any, schedule: Any, volunteer: Any
) -> None:
    made = schedule("*/5 * * * *", silent=timedelta(days=3))

    keeper.schedules()
    keeper.events()

    [event] = events(scientist)
    planned = datetime.fromisoformat(event["key"])
    assert datetime.now(timezone.utc) - planned < timedelta(minutes=6)
    assert event["task"] == f"{made['id']}-{planned:%Y%m%dT%H%MZ}"
    [chunk] = volunteer().claim(5)
    assert json.loads(chunk["input"]) == {"planned": planned.strftime("%Y-%m-%dT%H:%M+00:00")}


def test_several_housekeepers_make_one_task_of_a_planned_time(
    scientist: Scientist, stores: Any, schedule: Any
) -> None:
    import threading

    from source_server.housekeeping import Housekeeper

    schedule("0 0 * * *", silent=timedelta(days=2))
    keepers = [Housekeeper(stores, beat_s=20.0) for _ in range(4)]
    together = threading.Barrier(len(keepers))

    def look(keeper: Any) -> None:
        together.wait()
        keeper.schedules()
        keeper.events()

    threads = [threading.Thread(target=look, args=(keeper,)) for keeper in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(events(scientist)) == len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_a_planned_time_that_was_stored_but_not_noted_comes_to_the_same_event(
    scientist: Scientist, keeper: Any, schedule: Any, raw: Any
) -> None:
    made = schedule("0 0 * * *", silent=timedelta(days=2))
    keeper.schedules()
    keeper.events()

    # As if the housekeeper had died between the two.
    since = datetime.now(timezone.utc) - timedelta(days=2)
    raw.receivers.update_one({"_id": made["id"]}, {"$set": {"planned": since, "next_due": since}})
    keeper.schedules()
    keeper.events()

    assert len(events(scientist)) == len(scientist.ok("GET", "/tasks")["tasks"]) == 1


def test_a_new_schedule_does_not_run_for_the_time_before_it(
    scientist: Scientist, keeper: Any, schedule: Any
) -> None:
    scientist.ok("POST", "/projects", {"name": "nights"})
    body = {"kind": "schedule", "cron": "0 0 1 1 *", "template": ECHO}
    scientist.ok("POST", "/projects/nights/receivers", body)

    keeper.schedules()

    assert events(scientist) == []


def test_a_schedule_may_have_rows_of_its_own(
    scientist: Scientist, keeper: Any, schedule: Any, volunteer: Any
) -> None:
    schedule(
        "* * * * *",
        silent=timedelta(minutes=5),
        template={"action": ["/bin/echo", "{city}"]},
        rows=[{"city": "Ulm"}, {"city": "Bonn"}],
    )

    keeper.schedules()
    keeper.events()

    assert {json.loads(one["input"])["city"] for one in volunteer().claim(5)} == {"Ulm", "Bonn"}


def test_a_schedule_may_take_its_rows_from_a_file_of_the_owner_and_nobody_elses(
    app: Any, scientist: Scientist, keeper: Any, schedule: Any, new_key: Any, volunteer: Any
) -> None:
    import hashlib

    own, foreign = b"city\nUlm\nBonn\n", b"city\nOslo\n"
    stranger = Scientist(app, new_key("scientist"))
    for person, content in ((scientist, own), (stranger, foreign)):
        person.ok("PUT", f"/blobs/{hashlib.sha256(content).hexdigest()}", data=content)
    for content in (foreign, own):
        schedule(
            "* * * * *",
            silent=timedelta(minutes=5),
            template={"action": ["/bin/echo", "{city}"]},
            data={"sha256": hashlib.sha256(content).hexdigest(), "type": "text/csv"},
        )

    keeper.schedules()
    keeper.events()

    refused = [event for event in events(scientist) if event["state"] == "refused"]
    assert len(refused) == 1
    assert "no blob" in refused[0]["why"]
    assert {json.loads(one["input"])["city"] for one in volunteer().claim(5)} == {"Ulm", "Bonn"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"cron": "0 0 1 * 1"}, "two schedules"),
        ({"cron": "0 0 * * fri-sun", "timezone": "Mars/Olympus"}, "time zone"),
        ({"cron": "0 0 * * sat-mon"}, "forward"),
        ({"cron": "0 0 * * *", "timezone": "../../etc/passwd"}, "time zone"),
        ({"cron": "0 0 * * *", "template": {"action": ["{"]}}, "single"),
        ({"cron": "0 0 * * *", "template": {"action": ["/bin/echo", "{city}"]}}, "city"),
    ],
)
def test_a_schedule_that_could_not_work_is_refused(scientist: Scientist, settings: Any, says: str) -> None:
    scientist.ok("POST", "/projects", {"name": "nights"})
    whole = {"kind": "schedule", "template": {"action": ["/bin/date"]}, **settings}

    answer = scientist.call("POST", "/projects/nights/receivers", whole)

    assert answer.status_code == 400
    assert says in answer.get_json()["error"]


def test_nothing_can_be_sent_to_a_schedule(app: Any, schedule: Any) -> None:
    made = schedule("0 0 1 1 *", silent=timedelta())

    answer = app.test_client().post(f"/in/{made['id']}", json={})

    assert answer.status_code == 400
    assert made["address"] == ""
