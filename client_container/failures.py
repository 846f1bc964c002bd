"""How a call to the source server can fail, named after what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ServerUnavailable(Exception):
    """Not now, or outcome unknown: send the very same message again, `retry_after` seconds from now or later."""

    def __init__(self, reason: str, *, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.status = status  #: HTTP status, None when there was no answer at all


class BadAnswer(ServerUnavailable):
    """Something answered that does not speak the protocol (a proxy's page, half a body)."""


class LifeEnded(Exception):
    """The server does not know this key or life any more: register again, keep the spool."""


class Refused(Exception):
    """This message will never be accepted; `sentence` is the server's reason."""

    def __init__(self, status: int, sentence: str, message: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status, self.sentence = status, sentence
        self.message = message or {}  #: the whole body


class ProtocolTooOld(Exception):
    """The server no longer speaks this client's protocol; the volunteer has to update."""
