"""Receivers take work in from outside; each thing that comes is an event, stored before it is acknowledged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import IO, Any

MAX_SETTINGS = 64 * 1024  #: bytes of a receiver's settings, as JSON
MAX_PAYLOAD = 4 * 1024 * 1024  #: bytes that an event holds itself; more is a blob beside it
MOST_ABOUT = 16 * 1024  #: letters of the small facts about it
MOST_OPEN = 1000  #: events of one receiver that wait to be handled
MOST_HELD = 256 * 1024 * 1024  #: bytes that the events of one receiver hold together
MOST_RECEIVERS = 100  #: of one project
HANDLED_WITHIN = timedelta(seconds=30)  #: who handles an event and is silent for so long has died
LONGEST_REST = timedelta(minutes=5)  #: between two tries at an event
MOST_FAULTS = 10  #: failures of the server's own at one event, after which it is set aside
#: Times in a row that it was taken in hand and nothing was heard of it again: who did so has died.
MOST_TAKES = 5

KEPT_DONE = timedelta(days=90)  #: how long an event is remembered, so that its repetition is known as one
KEPT_REFUSED = timedelta(days=90)  #: how long one that was refused can still be handled again


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """One way into a project, of one kind."""

    id: str
    project: str
    kind: str
    settings: Mapping[str, Any]  #: JSON values, as the kind's settings model wrote them
    created: datetime
    secret: str | None = None  #: kept only where it has to be computed with (HMAC); else its hash is
    secret_hash: str = ""
    planned: datetime | None = None  #: a schedule's: up to here every planned time has been seen to
    next_due: datetime | None = None  #: a schedule's: before that nothing comes; None: not known


class EventState(str, Enum):
    """An event is new, being handled, or at its end."""

    NEW = "new"
    HANDLING = "handling"
    DONE = "done"  #: its task is there
    REFUSED = "refused"  #: it made no task; `why` says what to do


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that came to a receiver."""

    id: str  #: made from the receiver and `key`: the same thing again is the same event
    receiver: str
    project: str
    kind: str
    key: str  #: what names it there: delivery id, Message-ID, planned time, commit
    received: datetime
    digest: str  #: SHA-256 of what it brought: the same key with other contents is refused
    about: Mapping[str, str] = field(default_factory=dict)  #: small facts: file name, type, sender
    payload: bytes = b""
    blob: str | None = None  #: SHA-256 of a blob of the project's owner that it brought
    bytes: int = 0  #: size of the payload
    state: EventState = EventState.NEW
    why: str | None = None  #: one sentence: why it was refused, or is put off
    task: str | None = None  #: the task that it made
    tries: int = 0  #: times that somebody began to handle it
    faults: int = 0  #: of those, how many ended in a mistake of the server
    takes: int = 0  #: times in a row that somebody took it in hand without an outcome, the present one too
    not_before: datetime | None = None
    hand: str | None = None  #: who handles it
    touched: datetime | None = None  #: when that one last said so


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request at a receiver's address, read whole (`body`) and not yet believed."""

    method: str
    headers: Mapping[str, str]  #: names in small letters
    body: bytes  #: empty where the kind reads `stream` by itself
    stream: IO[bytes] | None = None
    name: str = ""  #: what the address has after the receiver's id
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a receiver makes of an arrival: an event to be stored. Nothing has happened yet."""

    key: str
    payload: bytes = b""
    about: Mapping[str, str] = field(default_factory=dict)
    blob: str | None = None
    digest: str | None = None  #: of what must be alike in a repetition; None: of payload, blob and facts


def event_id(receiver: str, key: str) -> str:
    """The id of the event that this receiver knows by this key."""
    return hashlib.sha256(f"{receiver}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def task_id(receiver: str, key: str) -> str:
    """The id of the task that such an event makes, where nobody outside has chosen one."""
    return f"{receiver}-{event_id(receiver, key)[:16]}"


def digest(offer: Offer) -> str:
    """What tells the contents of two offers apart."""
    if offer.digest is not None:
        return offer.digest
    whole = hashlib.sha256(offer.payload)
    for name, value in sorted(offer.about.items()):
        whole.update(f"\0{name}\0{value}".encode("utf-8", "surrogatepass"))
    whole.update(f"\0{offer.blob or ''}".encode())
    return whole.hexdigest()


def rest(tries: int) -> timedelta:
    """How long an event that was put off rests after so many tries: 1 s, doubling, at most five minutes."""
    return min(LONGEST_REST, timedelta(seconds=2 ** min(max(tries - 1, 0), 16)))
