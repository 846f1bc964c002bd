"""Why a request is refused. Each error is named after what happened; its text is one sentence for people."""

from __future__ import annotations


class Refusal(Exception):
    """Base of all that the server refuses; `str()` is the sentence that the caller reads."""


class BadInput(Refusal):
    """The message itself is wrong and will be as wrong next time."""


class NotFound(Refusal):
    """There is no such thing, or the caller may not know of it."""


class NotAllowed(Refusal):
    """The caller is known, but may not do this."""


class UnknownKey(Refusal):
    """No credential, or one that the server does not know (any more)."""


class LifeEnded(Refusal):
    """The container's life is over (purged, or registered anew): it must register again."""


class ProtocolUnknown(Refusal):
    """The client speaks a protocol that this server does not."""


class Conflict(Refusal):
    """The thing is in a state in which this cannot be done."""


class TooLarge(Refusal):
    """A body, a chunk or an answer over its limit."""


class Unavailable(Refusal):
    """Not now, or the outcome is not known: the same request may be sent again."""


class TooMany(Refusal):
    """As many as may be have done this for now; later it will do."""
