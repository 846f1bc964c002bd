"""Messages in the outbox go out: a step of housekeeping, in a thread of its own, bounded in number and in time.

Each message is taken in hand by a guarded write before it is tried. A process that dies during a try leaves a message
that is due again when the try's time is over: it may arrive twice, under the same id, and is not lost.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Protocol

from source_server.domain.notice import (
    MAILS_TO_ONE_AN_HOUR,
    Channel,
    Notice,
    NoticeState,
    most_an_hour,
    next_try,
)
from source_server.domain.refusal import Unavailable
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

TOGETHER = 8  #: tries at a time
IN_STEP = 64  #: tries in one step
IN_HAND = timedelta(minutes=5)  #: longer than any try takes


class NotDelivered(Exception):
    """A try failed; the message is one sentence. `for_good`: another would fail in the same way."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


class Sender(Protocol):
    """Sends one message (`SendWebhook`, `SendMail`)."""

    def __call__(self, notice: Notice) -> str:
        """Deliver it; what the other side said, in words. Raises NotDelivered. Ends within a minute."""


class Deliver:
    """Tries what is due."""

    def __init__(self, stores: Stores, senders: Mapping[Channel, Sender]) -> None:
        self._stores = stores
        self._senders = senders
        self._taking = threading.Lock()  #: so that those of one process are counted one after the other

    def step(self) -> int:
        """One try for each of some messages that are due; how many were tried."""
        due = self._stores.outbox.due(self._stores.clock.now(), limit=IN_STEP)
        if not due:
            return 0
        with ThreadPoolExecutor(max_workers=min(TOGETHER, len(due))) as pool:
            return sum(pool.map(self._one, due))

    def _one(self, notice: Notice) -> bool:
        """Try a message, unless it is somebody else's by now; whether it was tried."""
        try:
            with self._taking:
                taken = self._take(notice)
        except Unavailable as error:
            log.warning("message put off", extra={"notice": notice.id, "reason": str(error)})
            return False
        if taken:
            self._try(notice)
        return taken

    def _take(self, notice: Notice) -> bool:
        now = self._stores.clock.now()
        if (why := self._too_many(notice, now - timedelta(hours=1))) is not None:
            self._stores.outbox.put_off(notice, now + timedelta(minutes=10), why)
            return False
        return self._stores.outbox.take(notice, now + IN_HAND, now)

    def _too_many(self, notice: Notice, since: datetime) -> str | None:
        """Why a message has to wait: its account, or all together to its address, have sent as many as they may."""
        outbox, channel = self._stores.outbox, notice.target.channel
        most = most_an_hour(channel)
        if outbox.tried_since(notice.owner, channel, since, limit=most) >= most:
            return f"{most} messages about its owner's tasks have gone out in the last hour: this one waits."
        most = MAILS_TO_ONE_AN_HOUR
        if channel is Channel.EMAIL and outbox.mailed_since(notice.target.address, since, limit=most) >= most:
            return f"{most} messages have gone to this address in the last hour: this one waits."
        return None

    def _try(self, notice: Notice) -> None:
        try:
            said, failed, for_good = self._senders[notice.target.channel](notice), False, False
        except NotDelivered as error:
            said, failed, for_good = str(error), True, error.for_good
        except Exception:
            # A bug of ours must not stop the others, nor be tried for ever.
            log.exception("message could not be tried", extra={"notice": notice.id})
            said, failed, for_good = "The server made a mistake; it is in its log.", True, False
        now = self._stores.clock.now()
        due = next_try(notice.tries + 1, now) if failed and not for_good else None
        state = NoticeState.DELIVERED
        if failed:
            state = NoticeState.GIVEN_UP if due is None else NoticeState.WAITING
        log.info("message tried", extra={"notice": notice.id, "state": state.value})
        try:
            self._stores.outbox.note(notice, state, due, said, now)
        except Unavailable as error:
            log.warning("outcome of a message not written", extra={"notice": notice.id, "reason": str(error)})
