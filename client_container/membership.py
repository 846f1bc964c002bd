"""This container's standing with the server: which life it has, and getting a new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from client_container.backoff import Backoff
from client_container.connection import ServerConnection
from client_container.failures import Refused, ServerUnavailable
from client_container.holdings import Holdings
from client_container.protocol import Introduction, Registration

log = logging.getLogger(__name__)


#: A life shorter than this says that something is wrong, and registering at once would become a flood.
SHORT_LIFE_S = 5.0


class Unwelcome(Exception):
    """The very first registration was refused: a wrong key or address, which waiting does not mend."""


class Membership:
    """Registers when there is no current life; shared by all threads."""

    def __init__(
        self,
        connection: ServerConnection,
        who: Introduction,
        holdings: Holdings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._who, self._holdings, self._clock = connection, who, holdings, clock
        self._backoff = Backoff()
        self._began = self._not_before = float("-inf")
        self._lock = threading.Lock()
        self._current: Registration | None = None
        self._was_welcome = False

    def find(self) -> Registration | None:
        """The current life, without asking the server for one."""
        return self._current

    def get(self) -> Registration:
        """The current life, registering first when there is none.

        Raises ServerUnavailable, ProtocolTooOld, and Unwelcome when the first registration is refused. A later
        refusal counts as ServerUnavailable: a server being restored may not know our account for a while.
        """
        with self._lock:
            if self._current is None:
                rest_s = self._not_before - self._clock()
                if rest_s > 0:
                    raise ServerUnavailable("The last life ended at once.", retry_after=rest_s)
                self._current = self._register()
                self._began = self._clock()
                self._was_welcome = True
                log.info("registered", extra={"container": self._current.id, "life": self._current.life})
            return self._current

    def ended(self, member: Registration) -> None:
        """The server said that this life is over; a late word about an earlier life changes nothing."""
        with self._lock:
            if self._current is member:
                log.warning("life ended", extra={"life": member.life})
                self._holdings.end_life()
                self._current = None
                self._rest()

    def _rest(self) -> None:
        if self._clock() - self._began < SHORT_LIFE_S:
            self._not_before = self._clock() + self._backoff.pause()
        else:
            self._backoff.reset()

    def _register(self) -> Registration:
        try:
            return self._connection.register(self._who)
        except Refused as refusal:
            if not self._was_welcome:
                raise Unwelcome(
                    f"The server refuses to register this container: {refusal.sentence}"
                ) from refusal
            log.error("registration refused", extra={"status": refusal.status, "reason": refusal.sentence})
            raise ServerUnavailable(refusal.sentence, status=refusal.status) from refusal
