"""What happens without anyone asking: expiry, purging, settling, completing, dealing on, clearing up.

Runs in its own process; any number of them may run side by side. Every step can be called once, by itself; every write
it makes is a compare-and-set, so two housekeepers at work at once do no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from apscheduler.schedulers.blocking import BlockingScheduler

from source_server.app import build_services
from source_server.config import Settings
from source_server.domain.notice import Channel
from source_server.domain.refusal import Unavailable
from source_server.domain.watch import WorkingService
from source_server.receivers.git_fetch import GitSettings
from source_server.services.containers.purge import Purge
from source_server.services.each import alone, together
from source_server.services.files.blobs import limits_of
from source_server.services.files.sweep_blobs import SweepBlobs
from source_server.services.intake.handle_events import HandleEvents
from source_server.services.messages.deliver import Deliver, Sender
from source_server.services.messages.send_mail import SendMail
from source_server.services.messages.send_webhook import SendWebhook
from source_server.services.rotation import Rotation
from source_server.services.tasks.tend_tasks import TendTasks
from source_server.services.tasks.watch_limits import WatchLimits
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

LONGEST_GAP_S = 15.0  #: a service not heard of for so long, or for a beat, counts as gone
CHECKED = 200  #: tasks looked at in one step for chunks that wait for a verdict
DECIDE_BATCH = 200  #: chunks looked at again whose candidates wait for a verdict


class Housekeeper:
    """The steps, with what they work on."""

    def __init__(
        self,
        stores: Stores,
        *,
        beat_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        settings: Settings | None = None,
    ) -> None:
        self._stores = stores
        self._beat_s = beat_s
        self._monotonic = monotonic
        # Shorter than the silence that purges: who comes back after an outage must find that it was noticed.
        self._longest_gap_s = min(LONGEST_GAP_S, beat_s)
        self._watch = WorkingService(beat_s=beat_s, longest_gap_s=self._longest_gap_s)
        services = build_services(
            stores,
            beat_s=beat_s,
            git=None if settings is None else GitSettings.of(settings),
            limits_of_blobs=limits_of(settings),
        )
        self._give_back, self._accept, self._assign = services.give_back, services.accept, services.assign
        self._settle_results, self._reputation = services.settle_results, services.reputation
        self._react, self._depend = services.react, services.depend
        self._delete, self._send_round, self._calculate = (
            services.delete,
            services.send_round,
            services.calculate,
        )
        self._tend_tasks = TendTasks(
            stores,
            react=services.react,
            append=services.append,
            complete=services.complete,
            examine=services.examine,
            upload=services.upload,
        )
        self._checked = Rotation(lambda after: stores.unfinished.checked(after, limit=CHECKED))
        self._purge = Purge(stores, self._give_back, beat_s=beat_s)
        self._watch_limits = WatchLimits(stores, services.complete)
        self._notices, self._deliver = services.notices, Deliver(stores, senders(stores, settings))
        self._sweep_blobs = SweepBlobs(stores, limits_of(settings))
        self._handle_events = HandleEvents(stores, services.intake)

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
            self._stores.clock.now(), within=timedelta(seconds=self._longest_gap_s)
        )
        self._watch.observe(instant, serving=serving)
        if self._watch.proved(instant):
            self._purge.silent()

    def verdicts(self) -> None:
        """Settle stored attempts that a crash or a failover left without verdict."""
        now = self._stores.clock.now()
        _log_if("attempts settled", self._accept.settle(now))
        for task in self._checked.next():
            with alone("chunks of a task cannot be decided", task=task.id):
                self._decide(self._stores.chunks.validating(task.id, limit=DECIDE_BATCH), now)
        _log_if("results marked suspect", self._reputation.mark_suspects())

    def _decide(self, chunks: Sequence[str], now: datetime) -> None:
        def decide(some: Sequence[str]) -> int:
            self._settle_results.decide_again(some, now)
            return len(some)

        together("chunk cannot be decided", decide, chunks)

    def tasks(self) -> None:
        """Wake rested chunks, pause what only fails, sweep what was cancelled, complete, clear dead uploads."""
        self._tend_tasks()

    def dependencies(self) -> None:
        """Start, or cancel, tasks that waited for others, where a crash kept the end of those from doing so."""
        self._depend.go_on_all()

    def deals(self) -> None:
        """Go on with deals that were too large for their request, some batches each."""
        for deal, _ in self._stores.deals.under_way():
            with alone("deal cannot go on", deal=deal):
                self._assign.go_on(deal)

    def rounds(self) -> None:
        """Go on with rounds that were too large for their request, or broken off; some batches each."""
        for task in self._stores.rounds.under_way():
            with alone("round cannot go on", task=task):
                _log_if("chunks sent out again", self._send_round.go_on(task))

    def schedules(self) -> None:
        """Store as events what schedules have planned by now."""
        _log_if("planned times have come", self._handle_events.plan())

    def old_events(self) -> None:
        """Forget events that ended long ago."""
        _log_if("old events forgotten", self._handle_events.clear())

    def events(self) -> None:
        """Make tasks of what came to receivers."""
        _log_if("events handled", self._handle_events.work(slow=False))

    def slow_events(self) -> None:
        """The same, of those that take longer: repositories, large files."""
        _log_if("events handled", self._handle_events.work(slow=True))

    def reactions(self) -> None:
        """Go on with the reactions to the outcomes of tasks."""
        _log_if("steps of reactions taken", self._react.all())

    def large_reactions(self) -> None:
        """The same, of tasks whose tables take long to make."""
        _log_if("steps of reactions taken", self._react.large())

    def limits(self) -> None:
        """Count what tasks with limits have used; pause or end those that have used up."""
        self._watch_limits.step()

    def notices(self) -> None:
        """Write messages about tasks into the outbox."""
        self._notices.step()

    def deliveries(self) -> None:
        """Try the messages that are due."""
        self._deliver.step()

    def removals(self) -> None:
        """Go on with removing deleted tasks, some pieces each."""
        _log_if("documents of deleted tasks removed", self._delete.go_on())

    def calculations(self) -> None:
        """Hand over calculations whose taker died before it did; forget old ones."""
        _log_if("calculations handed over or forgotten", self._calculate.tend())

    def blobs(self) -> None:
        """Go on with the sweep of blobs that nothing names any more."""
        _log_if("blobs removed", self._sweep_blobs(self._stores.clock.now()))

    def redeal(self) -> None:
        """Deal again what came back in assigned-only projects."""
        _log_if("tasks dealt again", self._assign.redeal())


def senders(stores: Stores, settings: Settings | None) -> dict[Channel, Sender]:
    """How messages go out, with these settings; None: nowhere but to the public internet, and no mail."""
    return {
        Channel.WEBHOOK: SendWebhook(stores, networks=() if settings is None else settings.webhook_networks),
        Channel.EMAIL: SendMail(None if settings is None else settings.mail),
    }


def run(stores: Stores, *, beat_s: float, settings: Settings | None = None) -> None:
    """Do all of it, again and again, until SIGTERM or SIGINT."""
    keeper = Housekeeper(stores, beat_s=beat_s, settings=settings)
    scheduler = BlockingScheduler(timezone="UTC")
    pace = min(beat_s / 4, 5.0)
    for step, seconds in (
        (keeper.leases, max(pace, 1.0)),
        (keeper.unlisted, 3 * beat_s),
        (keeper.silence, pace),
        (keeper.verdicts, 3.0),
        (keeper.tasks, 1.0),
        (keeper.dependencies, 5.0),
        (keeper.deals, 0.5),
        (keeper.redeal, 2.0),
        (keeper.rounds, 0.5),
        (keeper.limits, 1.0),
        (keeper.notices, 1.0),
        (keeper.deliveries, 1.0),
        (keeper.reactions, 0.5),
        (keeper.large_reactions, 1.0),
        (keeper.calculations, 5.0),
        (keeper.removals, 1.0),
        (keeper.schedules, 1.0),
        (keeper.old_events, 600.0),
        (keeper.events, 0.5),
        (keeper.slow_events, 1.0),
        (keeper.blobs, 1.0),
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
