"""Enrolment: how somebody with a machine to lend gets an account: by the operator's key, or freely while it is open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

REPEATABLE = timedelta(hours=1)  #: how long the same request answers the same account again
KEY_PREFIX = "dce"  #: of enrolment keys, as `dca` is of accounts' and `dcc` of containers'


@dataclass(frozen=True, kw_only=True)
class EnrolmentKey:
    """A key that makes accounts: so many, until it expires. It is kept only as its hash."""

    made: datetime
    expires: datetime
    uses: int  #: how many accounts it may make
    left: int  #: how many of them are left

    def usable(self, now: datetime) -> bool:
        """Whether it still makes an account."""
        return self.left > 0 and now < self.expires


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One use of a key, or one time through the open door: the account that it makes, and whose request it was."""

    account: str  #: its id, whether it is there yet or not
    at: datetime
    nonce: str  #: as a hash


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Whether anybody may enrol without a key, and how many an hour."""

    open: bool = False
    per_hour: int = 0


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What a newcomer said, kept with the account; nothing is sent to the address yet."""

    at: datetime
    email: str | None = None
    host_name: str | None = None
    by_key: bool = False  #: with an enrolment key, and not through the open door
