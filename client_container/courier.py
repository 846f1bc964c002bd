"""The courier: heartbeats, and results that would otherwise wait too long while a chunk runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from client_container.backoff import Backoff
from client_container.connection import ServerConnection
from client_container.delivery import Deliverer
from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.holdings import Holdings
from client_container.membership import Membership
from client_container.protocol import Beat, Registration
from client_container.runtime import Standing
from client_container.spool import Spool

log = logging.getLogger(__name__)

LINGER_S = 2.0  #: a finished result waits at most this long for a claim to ride on
#: Whatever a server asks for, beats are neither a flood nor a rumour.
SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.05, 600.0


class Courier:
    """A step does what is due and says how long it may sleep."""

    def __init__(
        self,
        *,
        connection: ServerConnection,
        membership: Membership,
        holdings: Holdings,
        spool: Spool,
        deliverer: Deliverer,
        backoff: Backoff,
        standing: Callable[[], Standing] = Standing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._membership, self._holdings = connection, membership, holdings
        self._spool, self._deliverer, self._backoff, self._clock = spool, deliverer, backoff, clock
        self._standing = standing
        self._life: str | None = None
        self._beat = 0
        self._beat_s = LONGEST_BEAT_S
        self._next_beat = 0.0
        self._not_before = 0.0  #: after a failure

    def step(self) -> float:
        """Beat and deliver if due; answers the seconds until something is due, unless a result comes first.

        Raises ProtocolTooOld and Unwelcome, which end the client.
        """
        wait_s = self._not_before - self._clock()
        if wait_s > 0:
            return wait_s
        try:
            member = self._membership.get()
            self._follow(member)
            self._call(member)
        except ServerUnavailable as error:
            pause = self._backoff.pause(error.retry_after)
            self._not_before = self._clock() + pause
            log.warning("server unavailable", extra={"reason": str(error), "pause_s": round(pause, 2)})
            return pause
        return max(0.0, min(self._next_beat, self._delivery_due()) - self._clock())

    def _call(self, member: Registration) -> None:
        try:
            if self._clock() >= self._next_beat:
                self._send_beat(member)
            if self._clock() >= self._delivery_due():
                self._deliverer.deliver(member)
                self._backoff.reset()
        except LifeEnded:
            self._membership.ended(member)

    def _follow(self, member: Registration) -> None:
        """A new life counts its beats from one, and the registration stood for the first."""
        if member.life != self._life:
            self._life, self._beat = member.life, 0
            self._set_interval(member.beat_s)
            self._next_beat = self._clock() + self._beat_s

    def _send_beat(self, member: Registration) -> None:
        held, started = self._holdings.told()
        self._beat += 1
        standing = self._standing()
        beat = Beat(
            beat=self._beat, held=held, started=started, paused=standing.paused, cannot=standing.cannot
        )
        try:
            answer = self._connection.heartbeat(member, beat)
        except Refused as refusal:  # our mistake: the next beat will say something else
            log.error("heartbeat refused", extra={"status": refusal.status, "reason": refusal.sentence})
            self._next_beat = self._clock() + self._beat_s
            return
        self._backoff.reset()
        self._holdings.drop(answer.drop)
        self._holdings.lose(answer.lost)
        self._holdings.ask_again(answer.claim_again, held)
        if answer.beat_s is not None:
            self._set_interval(answer.beat_s)
        self._next_beat = self._clock() + self._beat_s

    def _set_interval(self, seconds: float) -> None:
        self._beat_s = min(max(seconds, SHORTEST_BEAT_S), LONGEST_BEAT_S)

    def _delivery_due(self) -> float:
        since = self._spool.waits_since
        if since is None:
            return float("inf")
        return since if self._spool.full else since + LINGER_S
