"""The client's loop: claim chunks, execute them, keep what came out. One step at a time."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from client_container.backoff import Backoff
from client_container.connection import ServerConnection
from client_container.delivery import Batch, Deliverer
from client_container.failures import LifeEnded, ProtocolTooOld, Refused, ServerUnavailable
from client_container.holdings import Holdings
from client_container.membership import Membership
from client_container.pace import Pace
from client_container.protocol import Attempt, Chunk, Claim, Registration
from client_container.runtime import (
    CannotRun,
    Execution,
    GivenBack,
    Halt,
    HostBroken,
    JobHalted,
    Runtime,
)
from client_container.spool import Spool

log = logging.getLogger(__name__)

PAUSED_PAUSE_S = 2.0  #: between two looks whether jobs may run again
FULL_PAUSE_S = 0.5  #: between two looks at a spool that was full
NOTHING_PAUSE_S = 5.0  #: after a 204 that names no pause
LONGEST_IDLE_S = 10.0  #: pauses without work grow up to this, unless the server names a longer one
AT_ONCE = 3  #: times that "ask again at once" is taken at its word


@dataclass(frozen=True)
class _Pending:
    """A claim the server has not answered yet."""

    token: str
    want: int
    again: bool = False  #: a claim_again, which the next beat will ask for anew


class ClientLoop:
    """Call `step` for ever; `wait` sleeps for a number of seconds, or less when the client is to stop."""

    def __init__(
        self,
        *,
        connection: ServerConnection,
        membership: Membership,
        holdings: Holdings,
        spool: Spool,
        deliverer: Deliverer,
        runtime: Runtime,
        wait: Callable[[float], object],
        finished: Callable[[], object] = lambda: None,
        backoff: Backoff | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._connection, self._membership, self._holdings = connection, membership, holdings
        self._spool, self._deliverer, self._runtime = spool, deliverer, runtime
        self._wait, self._finished = wait, finished
        self._backoff, self._pace = backoff or Backoff(), pace or Pace()
        self._host_backoff = Backoff()
        self._pending: _Pending | None = None
        self._with_results = True
        self._nothings = 0

    def step(self) -> None:
        """Execute one chunk, or claim; waits when there is nothing to do.

        Raises ProtocolTooOld and Unwelcome, which end the client.
        """
        if self._spool.full:
            self._spool.save_again()
            self._finished()
            self._wait(FULL_PAUSE_S)
            return
        if self._runtime.standing().paused:
            self._release(self._holdings.give_back())
            self._wait(PAUSED_PAUSE_S)
            return
        if self._pending is None and (again := self._holdings.next_again()):
            self._pending = _Pending(again[0], max(1, again[1]), again=True)
        if self._pending is None and (started := self._holdings.start()):
            self._execute(*started)
        elif not self._holdings.closed:
            self._claim()

    def _execute(self, chunk: Chunk, halt: Halt) -> None:
        began = time.monotonic()
        kept, pause = False, 0.0
        try:
            execution = self._runtime.execute(chunk, halt)
            self._keep(chunk, execution)
            self._runtime.reported(chunk)
            kept = True
            self._host_backoff.reset()
        except JobHalted:
            log.info("chunk halted", extra={"chunk": chunk.id})
        except GivenBack as back:
            pause = self._give_back(chunk, back)
        except HostBroken as broken:
            pause = self._report_broken(chunk, str(broken))
            kept = True
        finally:
            self._holdings.ended(chunk, kept=kept)
            self._finished()
        if pause:
            self._wait(pause)
        elif kept:
            self._pace.finished(time.monotonic() - began)

    def _keep(self, chunk: Chunk, execution: Execution) -> None:
        """Put what came out into the spool; raises HostBroken when its files cannot be kept."""
        try:
            self._spool.put(_attempt(chunk, execution), execution.folder)
        except OSError as error:
            raise HostBroken(
                f"The files of the answer cannot be kept here ({error.strerror or error})."
            ) from error

    def _give_back(self, chunk: Chunk, back: GivenBack) -> float:
        """Give the chunk back, and those that would fare the same; answers how long to pause."""
        log.info("chunk given back", extra={"chunk": chunk.id, "reason": str(back)})
        if isinstance(back, CannotRun):
            # The next heartbeat tells the server; until then it may deal us more of the same.
            self._release([chunk.id, *self._holdings.give_back(back.image)])
            return self._host_backoff.pause()
        self._release([chunk.id])
        return PAUSED_PAUSE_S

    def _release(self, chunks: list[str]) -> None:
        """Tell the server, if it listens: else the leases end by themselves."""
        member = self._membership.find()
        if not chunks or member is None:
            return
        try:
            self._connection.release(member, chunks)
        except (ServerUnavailable, LifeEnded, Refused) as error:
            log.warning("release unheard", extra={"chunks": len(chunks), "reason": str(error)})

    def _report_broken(self, chunk: Chunk, reason: str) -> float:
        """Report the chunk as not executed; answers how long to pause: who fails fast must not drain the queue."""
        now = datetime.now(timezone.utc)
        execution = Execution(
            outcome="engine",
            stderr_tail=reason,
            started=now,
            ended=now,
            runtime=self._runtime.name,
            image=None,
        )
        self._spool.put(_attempt(chunk, execution))
        pause = self._host_backoff.pause()
        log.error("host broken", extra={"chunk": chunk.id, "reason": reason, "pause_s": round(pause, 2)})
        return pause

    def _claim(self) -> None:
        batch: Batch = ()
        member: Registration | None = None
        try:
            member = self._membership.get()
            pending = self._promise()
            batch = self._deliverer.batch() if self._with_results else ()
            claim = self._connection.next(member, pending.token, pending.want, [data for _, data in batch])
        except (ServerUnavailable, LifeEnded, Refused, ProtocolTooOld) as error:
            self._deliverer.failed(batch, error)
            self._finished()  # the courier has to look after these results while we wait
            self._claim_failed(error, member)
        else:
            self._backoff.reset()
            self._with_results = True
            # What is held first: settling its last chunk would end a token that was claimed again.
            fresh = self._holdings.claimed(pending.token, claim.chunks)
            if self._deliverer.settle(batch, claim.deliveries):
                self._finished()
            self._claimed(pending, claim, fresh)

    def _promise(self) -> _Pending:
        """The claim to send: the unanswered one, else a new one, held from the moment its token is made."""
        if self._pending is None or not self._holdings.holds(self._pending.token):
            self._pending = _Pending(str(uuid.uuid4()), self._pace.want())
            self._holdings.promise(self._pending.token)
        return self._pending

    def _claimed(self, pending: _Pending, claim: Claim, fresh: int) -> None:
        self._pending = None
        if fresh:
            self._nothings = 0
            self._pace.granted(pending.want)
            log.info("chunks claimed", extra={"chunks": fresh, "wanted": pending.want})
        elif not pending.again:
            self._wait_for_work(claim)

    def _wait_for_work(self, claim: Claim) -> None:
        """Nothing to do now; "at once" is believed a few times, then it becomes a short random pause."""
        self._nothings += 1
        pause = claim.retry_after
        if pause is None:
            pause = 0.0 if claim.deliveries else NOTHING_PAUSE_S
        if pause == 0 and self._nothings > AT_ONCE:
            pause = Backoff(base_s=0.5).pause()
        elif 0 < pause < LONGEST_IDLE_S:
            pause = min(LONGEST_IDLE_S, pause * 2 ** min(self._nothings - 1, 10))
        if pause > 0:
            self._wait(pause)

    def _claim_failed(self, error: Exception, member: Registration | None) -> None:
        if isinstance(error, ProtocolTooOld):
            raise error
        if isinstance(error, LifeEnded) and member is not None:
            self._membership.ended(member)
            return
        if self._pending is not None and (self._pending.again or isinstance(error, Refused)):
            if isinstance(error, Refused):
                self._holdings.give_up(self._pending.token)
            self._pending = None
        # A refused claim may be the fault of a result that rode on it: the courier finds out which.
        self._with_results = not isinstance(error, Refused)
        pause = self._backoff.pause(getattr(error, "retry_after", None))
        log.warning("claim failed", extra={"reason": str(error), "pause_s": round(pause, 2)})
        self._wait(pause)


def _attempt(chunk: Chunk, execution: Execution) -> Attempt:
    seconds = (execution.ended - execution.started).total_seconds()
    unusual = execution.outcome != "ok"
    log.log(
        logging.INFO if unusual or seconds >= 1 else logging.DEBUG,
        "chunk finished",
        extra={"chunk": chunk.id, "outcome": execution.outcome, "seconds": round(seconds, 3)}
        | ({"exit": execution.exit_code, "signal": execution.signal} if unusual else {}),
    )
    facts = {name: value for name, value in vars(execution).items() if name != "folder"}
    return Attempt(chunk=chunk.id, run=chunk.run, token=chunk.token, ticket=chunk.ticket, **facts)
