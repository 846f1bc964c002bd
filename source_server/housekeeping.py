"""What happens without anyone asking: expiry, purging, settling, completing, dealing on, clearing up.

Runs in its own process; any number of them may run side by side. Every step can be called once, by itself; every write
it makes is a compare-and-set, so two housekeepers at work at once do no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from apscheduler.schedulers.blocking import BlockingScheduler

from source_server.domain.refusal import Unavailable
from source_server.domain.task import TaskState
from source_server.domain.watch import WorkingService
from source_server.services.accept import Accept
from source_server.services.assign import Assign
from source_server.services.complete import Complete
from source_server.services.give_back import GiveBack
from source_server.services.purge import Purge
from source_server.services.upload import ReceiveUpload
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

LONGEST_GAP_S = 15.0  #: a service not heard of for so long counts as gone


class Housekeeper:
    """The steps, with what they work on."""

    def __init__(
        self, stores: Stores, *, beat_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores = stores
        self._beat_s = beat_s
        self._monotonic = monotonic
        self._watch = WorkingService(beat_s=beat_s, longest_gap_s=LONGEST_GAP_S)
        self._complete = Complete(stores)
        self._give_back = GiveBack(stores)
        self._purge = Purge(stores, self._give_back, beat_s=beat_s)
        self._accept = Accept(stores, secret=stores.meta.secret(), complete=self._complete)
        self._assign = Assign(stores)
        self._upload = ReceiveUpload(stores)

    def leases(self) -> None:
        """Give expired leases back, and whatever belongs to an ended life."""
        _log_if("leases expired", self._give_back.expired(self._stores.clock.now()))
        _log_if("held by ended lives, given back", self._give_back.ended_lives())

    def unlisted(self) -> None:
        """Give back what live containers hold without knowing it."""
        _log_if("not listed by its holder, given back", self._give_back.unlisted(self._beat_s))

    def silence(self) -> None:
        """Purge silent containers, once the service has been watched at work for long enough."""
        instant = self._monotonic()
        serving = self._stores.meta.is_serving(
            self._stores.clock.now(), within=timedelta(seconds=LONGEST_GAP_S)
        )
        self._watch.observe(instant, serving=serving)
        if self._watch.proved(instant):
            self._purge.silent()

    def verdicts(self) -> None:
        """Settle stored attempts that a crash or a failover left without verdict."""
        _log_if("attempts settled", self._accept.settle(self._stores.clock.now()))

    def tasks(self) -> None:
        """Wake rested chunks, sweep cancelled tasks, complete finished ones, clear dead uploads."""
        for task in self._stores.tasks.unfinished():
            if task.cancelled:
                self._complete.sweep_cancelled(task)
            elif task.state is TaskState.RUNNING:
                self._complete.wake(task)
                self._complete.if_done(task.id)
            elif self._upload.clean(task):
                log.info("unfinished upload removed", extra={"task": task.id})

    def deals(self) -> None:
        """Go on with deals that were too large for their request, one batch each."""
        for deal in self._stores.deals.under_way():
            self._assign.step(deal)


def run(stores: Stores, *, beat_s: float) -> None:
    """Do all of it, again and again, until SIGTERM or SIGINT."""
    keeper = Housekeeper(stores, beat_s=beat_s)
    scheduler = BlockingScheduler(timezone="UTC")
    pace = min(beat_s / 4, 5.0)
    for step, seconds in (
        (keeper.leases, max(pace, 1.0)),
        (keeper.unlisted, 3 * beat_s),
        (keeper.silence, pace),
        (keeper.verdicts, 3.0),
        (keeper.tasks, 1.0),
        (keeper.deals, 0.5),
    ):
        scheduler.add_job(
            _guarded(step), "interval", seconds=seconds, id=step.__name__, max_instances=1, coalesce=True
        )
    log.info("housekeeping begins", extra={"beat_s": beat_s})
    scheduler.start()


def _guarded(step: Callable[[], None]) -> Callable[[], None]:
    def once() -> None:
        try:
            step()
        except Unavailable as error:
            log.warning("step put off", extra={"step": step.__name__, "reason": str(error)})

    return once


def _log_if(event: str, count: int) -> None:
    if count:
        log.info(event, extra={"count": count})
