"""The shapes of answers about receivers and their events."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from source_server.web.shapes.base import Instant, Said


class Receiver(Said):
    """A way into a project, without its secret."""

    id: str
    project: str
    kind: str
    settings: dict[str, Any] = Field(description="As they were said.")
    address: str = Field(description="Where things are sent to; of a schedule empty.")
    created: Instant


class MadeReceiver(Receiver):
    """A new one; the secret is shown this once."""

    secret: str


class Receivers(Said):
    """A project's receivers, oldest first."""

    receivers: list[Receiver]


class Event(Said):
    """What came to a receiver, without its contents."""

    id: str
    receiver: str
    kind: str
    key: str = Field(
        description="What names it: the sender's id, a delivery id, a Message-ID, a planned time."
    )
    received: Instant
    state: Literal["new", "handling", "done", "refused"]
    task: str | None
    why: str | None = Field(description="Why it was refused, or is put off: one sentence.")
    about: dict[str, str]
    tries: int


class Events(Said):
    """A project's events, newest first."""

    events: list[Event]
