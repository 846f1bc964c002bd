"""What a host's and an account's record say: how much they may hold, and whether their word is enough.

Records are hints made from verdicts: a count lost in a crash makes a host prove itself a little longer. Nothing here
decides alone whether an answer is right.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

SLOT_START = 2.0  #: chunks that a new host may hold for each of its containers
SLOT_MOST = 512.0  #: and a proved one
HOST_LEAST = 1.0  #: even the worst host may hold one
BLAMES = 3  #: chunks that failed on a host and succeeded elsewhere, in a row, after which it is quarantined
DISAGREEMENTS = 3  #: answers that disagreed, likewise
CANARIES = 3  #: canaries that clear it, in a row
TRUSTED = 10  #: agreements in a row before an adaptive task takes a host's word
ESTABLISHED = 20  #: agreements of an account before it counts as established
ESTABLISHED_AFTER = timedelta(days=7)  #: and the age of its first one


@dataclass(frozen=True, kw_only=True)
class HostRecord:
    """A host of one account, as its attempts have shown it. A host's id is its owner's word, so it is theirs only."""

    account: str
    host: str
    limit: float | None = None  #: chunks it may hold at once; None: a newcomer's
    agreed: int = 0  #: answers that others, or a canary, agreed with
    streak: int = 0  #: of those, since the last disagreement
    last_agreed: datetime | None = None
    disagreed: int = 0  #: answers that a quorum did not agree with, since it was last cleared
    blamed: int = 0  #: chunks that failed here and succeeded elsewhere, since its last success
    passed: int = 0  #: canaries passed in a row while quarantined
    quarantined: datetime | None = None
    why: str | None = None  #: why it is quarantined, in words


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An account's record."""

    agreed: int = 0
    first_agreed: datetime | None = None


def in_flight_limit(record: HostRecord | None, slots: int) -> int:
    """How many chunks a host with so many live containers may hold at once."""
    slots = max(1, slots)
    start = SLOT_START * slots
    limit = start if record is None or record.limit is None else record.limit
    return int(max(HOST_LEAST, min(limit, SLOT_MOST * slots)))


def is_established(standing: Standing, now: datetime) -> bool:
    """Whether an account has a long record: 20 agreements, the first of them a week ago."""
    first = standing.first_agreed
    return first is not None and standing.agreed >= ESTABLISHED and now - first >= ESTABLISHED_AFTER


def needs_no_second_opinion(record: HostRecord | None, result: str, secret: bytes) -> bool:
    """Whether an adaptive task takes this answer alone: nearly always from a trusted host, but at random not.

    One of n is checked, after n agreements in a row. The dice are an HMAC of the result's id: the same answer settled
    again falls the same way, and nobody outside can tell which way.
    """
    if record is None or record.quarantined is not None or record.streak < TRUSTED:
        return False
    thrown = hmac.new(secret, f"second opinion\n{result}".encode(), hashlib.sha256).digest()
    return int.from_bytes(thrown[:8], "big") / 2**64 >= 1.0 / record.streak


def must_quarantine(record: HostRecord) -> str | None:
    """Why a host is to get nothing but canaries from now on, or None."""
    if record.quarantined is not None:
        return None
    if record.blamed >= BLAMES:
        return f"{record.blamed} chunks in a row failed here and succeeded elsewhere"
    if record.disagreed >= DISAGREEMENTS:
        return f"{record.disagreed} of its answers disagreed with a quorum"
    return None
