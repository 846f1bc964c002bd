"""Work by the clock: a cron expression, in a time zone. One task for each planned time; after downtime the latest."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from source_server.domain.cron import BadCron, NextTime, latest, normalised
from source_server.domain.receiver import Event, Offer, Receiver
from source_server.receivers.fill import Data, Fill, lines_of
from source_server.receivers.http import JSONL, require_fitting
from source_server.receivers.plug import Plug, Template, sentence_of
from source_server.services.accounts.people import People
from source_server.services.files.blobs import Blobs
from source_server.web import wire

_SOME_DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}; they are called like Europe/Berlin") from None
    return name


def _cron(expression: str) -> str:
    try:
        if _next_time(expression, "UTC")(_SOME_DAY) is None:
            raise BadCron("That day never comes.")
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}") from error
    return expression


class DataBody(wire.Strict):
    """A table that was put there before, as a blob of the project's owner."""

    sha256: Annotated[str, AfterValidator(wire.matching(r"[0-9a-f]{64}", "must be a SHA-256 in hexadecimal"))]
    type: Literal["text/csv", "application/jsonl", "application/vnd.apache.parquet"]


class ScheduleSettings(wire.Strict):
    """Of a receiver of the kind `schedule`."""

    cron: Annotated[str, StringConstraints(max_length=200), AfterValidator(_cron)]
    timezone: Annotated[str, StringConstraints(max_length=100), AfterValidator(_zone)] = "UTC"
    template: Template
    rows: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)] | None = None
    data: DataBody | None = None

    @model_validator(mode="after")
    def _fitting(self) -> ScheduleSettings:
        if self.rows is not None and self.data is not None:
            raise ValueError("say either 'rows' or 'data'")
        if self.data is None:  # what is in a file is seen when its time has come
            with sentence_of():
                require_fitting(self.template, _lines(self, _SOME_DAY))
        return self


class Schedule(Plug[ScheduleSettings]):
    """Nothing is sent here: time itself brings the events."""

    name = "schedule"
    timed = True
    settings_model = ScheduleSettings

    def __init__(self, fill: Fill, people: People, blobs: Blobs) -> None:
        self._fill, self._people, self._blobs = fill, people, blobs

    def where(self, receiver: Receiver, secret: str | None) -> str:
        """Nowhere."""
        return ""

    def due(self, receiver: Receiver, now: datetime) -> Offer | None:
        """The latest planned time that has come and was not seen to."""
        planned = latest(_clock(receiver), after=receiver.planned or receiver.created, now=now)
        return None if planned is None else Offer(key=planned.isoformat())

    def next_due(self, receiver: Receiver, now: datetime) -> datetime | None:
        """The next planned time after now."""
        planned = _clock(receiver)(now + timedelta(microseconds=1))
        return None if planned is None else planned.astimezone(timezone.utc)

    def handle(self, receiver: Receiver, event: Event) -> str:
        """The task of that planned time."""
        settings, planned = self.settings_of(receiver), datetime.fromisoformat(event.key)
        task_id = f"{receiver.id}-{planned:%Y%m%dT%H%MZ}"
        if settings.data is None:
            lines = _lines(settings, planned)
            return self._fill(receiver, settings.template, task_id, Data(kind=JSONL, lines=lambda: lines))
        table = settings.data
        self._blobs.require(self._people.owner_of(receiver.project).id, table.sha256)
        with self._blobs.open(table.sha256) as content:
            data = Data(kind=table.type, lines=lambda: lines_of(content))
            return self._fill(receiver, settings.template, task_id, data)


def _lines(settings: ScheduleSettings, planned: datetime) -> list[bytes]:
    """The rows of one run: those of the settings, or one that says when it was planned."""
    there = planned.astimezone(ZoneInfo(settings.timezone)).isoformat(timespec="minutes")
    return [json.dumps(row).encode() + b"\n" for row in settings.rows or [{"planned": there}]]


def _clock(receiver: Receiver) -> NextTime:
    # The settings were checked when the receiver was made: here only these two are read.
    return _next_time(receiver.settings["cron"], receiver.settings.get("timezone", "UTC"))


@lru_cache(maxsize=1000)
def _next_time(expression: str, zone: str) -> NextTime:
    """When it comes next. Of an hour that the clock shows twice a fixed time is the first, `*` are both."""
    trigger = CronTrigger.from_crontab(normalised(expression), timezone=ZoneInfo(zone))
    fixed = "*" not in expression.split()[1]

    def find(instant: datetime) -> datetime | None:
        planned: datetime | None = trigger.get_next_fire_time(None, instant)
        while planned is not None and fixed and planned.fold:
            # Found in UTC: arithmetic on local time forgets which of the two it is.
            planned = trigger.get_next_fire_time(
                None, planned.astimezone(timezone.utc) + timedelta(minutes=1)
            )
        return planned

    return find
