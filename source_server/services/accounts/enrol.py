"""`POST /enrol`: an account for somebody who lends a machine; and the operator's say in who may."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from source_server.domain.account import Account, Role, key_hash, new_key
from source_server.domain.enrolment import KEY_PREFIX, Doors, Enrolment, EnrolmentKey, Entry
from source_server.domain.refusal import NotAllowed, TooMany, Unavailable, UnknownKey
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """A new volunteer's account: `key` is shown this once and stored only as a hash."""

    account: str  #: its name
    key: str


@dataclass(frozen=True, kw_only=True)
class EnrolmentStatus:
    """Who may enrol now."""

    doors: Doors
    this_hour: int  #: came in through the open door
    keys: tuple[EnrolmentKey, ...]  #: that can still be used


class Enrol:
    """Makes volunteers' accounts for those who have a key, or for anybody while enrolment is open."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(
        self, key: str | None, *, email: str | None, host_name: str | None, nonce: str | None = None
    ) -> Enrolled:
        """The same key and `nonce` within an hour: the same account, with a new key in place of the earlier one.

        Raises UnknownKey, NotAllowed (the key is used up, or has expired), TooMany (in this hour) or Unavailable.
        """
        now = self._stores.clock.now()
        said = Enrolment(at=now, email=email, host_name=host_name, by_key=key is not None)
        if nonce is None:
            self._enter(key, now)
            return self._make(uuid.uuid4().hex, said)
        entry = Entry(account=uuid.uuid4().hex, at=now, nonce=key_hash(nonce))
        earlier = self._entered(key, entry)
        if earlier is None:
            try:
                self._enter(key, now, entry)
                return self._make(entry.account, said)
            except (UnknownKey, NotAllowed, TooMany):
                earlier = self._entered(key, entry)  # the same request a moment ago
                if earlier is None:
                    raise
        return self._renew(earlier, said)

    def make_key(self, *, uses: int, valid: timedelta) -> str:
        """A new enrolment key, shown this once."""
        key, now = new_key(KEY_PREFIX), self._stores.clock.now()
        made = EnrolmentKey(made=now, expires=now + valid, uses=uses, left=uses)
        self._stores.enrolments.add(key_hash(key), made)
        return key

    def open(self, *, per_hour: int) -> None:
        """Let anybody enrol without a key, so many an hour."""
        self._stores.enrolments.set_doors(Doors(open=True, per_hour=per_hour))

    def close(self) -> None:
        """From now on a key is needed; the accounts that were made stay."""
        self._stores.enrolments.set_doors(Doors())

    def status(self) -> EnrolmentStatus:
        """Who may enrol now."""
        now, known = self._stores.clock.now(), self._stores.enrolments
        return EnrolmentStatus(
            doors=known.doors(), this_hour=known.opened_in(now), keys=tuple(known.usable(now))
        )

    def _entered(self, key: str | None, entry: Entry) -> str | None:
        return self._stores.enrolments.entered(key_hash(key) if key else None, entry.nonce, entry.at)

    def _enter(self, key: str | None, now: datetime, entry: Entry | None = None) -> None:
        if key is None:
            self._through_the_door(now, entry)
        elif not self._stores.enrolments.use(key_hash(key), now, entry):
            raise self._refusal(key)

    def _make(self, account_id: str, said: Enrolment) -> Enrolled:
        mark = secrets.token_hex(4)
        account = Account(
            id=account_id,
            name=f"lender-{mark}-{secrets.token_hex(2)}",
            role=Role.VOLUNTEER,
            pseudonym=f"{Role.VOLUNTEER.value}-{mark}",
        )
        key = new_key("dca")
        try:
            self._stores.accounts.add(account, key_hash(key), said)
        except AlreadyThere:  # a repeat of this request was faster: its answer counts
            raise Unavailable("The same was asked twice at once; send the same request again.") from None
        return Enrolled(account=account.name, key=key)

    def _renew(self, account_id: str, said: Enrolment) -> Enrolled:
        key = new_key("dca")
        account = self._stores.accounts.renew(account_id, key_hash(key))
        if account is None:  # the first request took its use and got no further
            return self._make(account_id, said)
        return Enrolled(account=account.name, key=key)

    def _through_the_door(self, now: datetime, entry: Entry | None) -> None:
        doors = self._stores.enrolments.doors()
        if not doors.open:
            raise UnknownKey("This server asks for an enrolment key: its operator hands them out.")
        if not self._stores.enrolments.count_open(now, entry, at_most=doors.per_hour):
            raise TooMany(
                f"{doors.per_hour} have enrolled within this hour, which is the most: try again in the next."
            )

    def _refusal(self, key: str) -> UnknownKey | NotAllowed:
        known = self._stores.enrolments.find(key_hash(key))
        if known is None:
            return UnknownKey("This enrolment key is not known here.")
        if known.left < 1:
            return NotAllowed("This enrolment key has been used: ask the operator for another.")
        return NotAllowed(
            f"This enrolment key expired on {known.expires:%Y-%m-%d}: ask the operator for another."
        )
