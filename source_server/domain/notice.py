"""Messages about a task that go out: to whom, about what, and when one that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

MOST_TARGETS = 5  #: addresses that a task tells
#: Pauses after the first, second, ... failed try, in seconds; after the last of them it is given up.
PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)
MAILS_AN_HOUR = 30  #: of one account's tasks, whatever project they are in
#: To one address, whoever's tasks they are about: the mail server is the operator's.
MAILS_TO_ONE_AN_HOUR = 30
HOOKS_AN_HOUR = 600  #: of one account's tasks


class Channel(str, Enum):
    """How a message goes out."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class Event(str, Enum):
    """What a message is about."""

    COMPLETED = "task.completed"
    PAUSED = "task.paused"  #: by itself, not by a person


class NoticeState(str, Enum):
    """Where a message stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Who is told."""

    channel: Channel
    address: str  #: a URL or an e-mail address


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message to one address. Its id is made of what it is about: it exists once."""

    id: str
    task: str
    project: str
    owner: str | None = None  #: the account whose task it is; None in those of before
    event: Event
    target: Target
    body: str  #: JSON text, the same at every try
    created: datetime
    state: NoticeState = NoticeState.WAITING
    tries: int = 0
    due: datetime | None = None  #: when it is tried next; None: not any more
    last: str | None = None  #: how the last try ended, as a sentence
    ended: datetime | None = None


def next_try(tries: int, now: datetime) -> datetime | None:
    """When a message that has failed so many times is tried again; None: it is given up."""
    return now + timedelta(seconds=PAUSES_S[tries - 1]) if 1 <= tries <= len(PAUSES_S) else None


def most_an_hour(channel: Channel) -> int:
    """Messages about one account's tasks in an hour."""
    return MAILS_AN_HOUR if channel is Channel.EMAIL else HOOKS_AN_HOUR


def notice_id(task: str, made: datetime, event: Event, occasion: int, target: Target, place: int) -> str:
    """The id of the message about the `occasion`th event of its kind to the task's `place`th address.

    `made`, in milliseconds, tells the task from a deleted one of the same id, whose messages may still be waiting.
    """
    instant = round(made.timestamp() * 1000)
    return f"{task}.{instant}.{event.value.rpartition('.')[2]}.{occasion}.{place}.{target.channel.value}"
