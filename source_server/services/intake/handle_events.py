"""Events become tasks: housekeeping's part of taking work in. Any step may be broken off and done again."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timedelta

from source_server.domain.receiver import (
    HANDLED_WITHIN,
    KEPT_DONE,
    KEPT_REFUSED,
    MOST_FAULTS,
    MOST_TAKES,
    Event,
    EventState,
    Receiver,
    rest,
)
from source_server.domain.refusal import NotFound, Refusal, Unavailable
from source_server.services.intake.intake import Intake, Kind
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

BATCH = 50  #: events handled in one step of housekeeping
STEP_S = 60.0  #: seconds after which a step begins with no other event
AT_ONCE = 3  #: slow events that are handled at once, each of another project
PROJECTS = 200  #: whose events are looked at in one step, by lot
PLANNED = 100  #: schedules that are looked at in one step
REST = timedelta(minutes=1)  #: of a schedule that cannot be followed now
LONGEST_LOOK = timedelta(days=30)  #: after which a schedule is looked at in any case

_DEADLY = (
    f"Whoever handled it came to an end over it, {MOST_TAKES} times in a row: it may need more memory than the "
    "server has. Nothing is lost: have it handled again once the server has more, or send less at once."
)


class HandleEvents:
    """Handles what `Intake` has stored; several of them side by side do no harm."""

    def __init__(self, stores: Stores, intake: Intake) -> None:
        self._stores = stores
        self._intake = intake

    def plan(self) -> int:
        """Store what time itself brings; how many events are new."""
        now, new = self._stores.clock.now(), 0
        for kind in (one for one in self._intake.kinds.values() if one.timed):
            for receiver in self._stores.receivers.due(kind.name, now, limit=PLANNED):
                try:
                    new += self._planned(kind, receiver, now)
                except Unavailable:
                    raise
                except Exception:  # one of them must not hold the others up
                    log.exception("schedule cannot be followed", extra={"receiver": receiver.id})
                    self._stores.receivers.note_planned(receiver.id, None, now + REST)
        return new

    def _planned(self, kind: Kind, receiver: Receiver, now: datetime) -> bool:
        offer, further = kind.due(receiver, now), kind.next_due(receiver, now) or now + LONGEST_LOOK
        if offer is None:
            self._stores.receivers.note_planned(receiver.id, None, further)
            return False
        # The event first: if this process dies in between, the same event is found there next time.
        event = self._intake.store(receiver, offer)
        self._stores.receivers.note_planned(receiver.id, datetime.fromisoformat(offer.key), further)
        return event.state is EventState.NEW

    def work(self, *, slow: bool) -> int:
        """Handle events that are due, of quick kinds or of slow ones; how many came to an end.

        Projects take turns, and in a project its receivers. Of slow events several are handled at once, but only
        one of a project.
        """
        kinds = [kind.name for kind in self._intake.kinds.values() if kind.slow is slow]
        lanes = deque(self._of_project(one, kinds, slow) for one in self._projects(kinds))
        busy: dict[Future[bool], Iterator[str]] = {}
        most, until, ended, begun = AT_ONCE if slow else 1, time.monotonic() + STEP_S, 0, 0
        with ThreadPoolExecutor(most, thread_name_prefix="events") as pool:
            while True:
                while lanes and len(busy) < most and begun < BATCH and time.monotonic() < until:
                    lane = lanes.popleft()
                    if (event_id := next(lane, None)) is not None:
                        busy[pool.submit(self.handle, event_id)] = lane
                        begun += 1
                if not busy:
                    return ended
                for done in wait(busy, return_when=FIRST_COMPLETED).done:
                    lanes.append(busy.pop(done))
                    ended += done.result()

    def _projects(self, kinds: Sequence[str]) -> list[str]:
        found = self._stores.events.projects(kinds)
        return random.sample(found, min(len(found), PROJECTS))

    def _of_project(self, project: str, kinds: Sequence[str], slow: bool) -> Iterator[str]:
        """The project's events that are due, its receivers taking turns."""
        now = self._stores.clock.now()
        if slow and self._stores.events.in_hand(kinds, project, silent_since=now - HANDLED_WITHIN):
            return  # another housekeeper has one: these wait, so that there is room for other projects
        found = self._stores.events.receivers(kinds, project)
        turns = deque(self._of_receiver(one) for one in random.sample(found, len(found)))
        while turns:
            events = turns.popleft()
            if (event_id := next(events, None)) is not None:
                turns.append(events)
                yield event_id

    def _of_receiver(self, receiver_id: str) -> Iterator[str]:
        """The receiver's events that are due; where they go in order, as long as none before them is open."""
        now, receiver = self._stores.clock.now(), self._stores.receivers.find(receiver_id)
        in_order = receiver is not None and self._intake.kind(receiver.kind).in_order(receiver)
        due = self._stores.events.due(receiver_id, now, silent_since=now - HANDLED_WITHIN, limit=BATCH)
        for event_id in due:
            if in_order and self._stores.events.first_open(receiver_id) != event_id:
                return
            yield event_id

    def handle(self, event_id: str) -> bool:
        """Handle one event, if nobody else does; whether it came to its end."""
        now, hand = self._stores.clock.now(), uuid.uuid4().hex
        event = self._stores.events.take(event_id, hand, now, silent_since=now - HANDLED_WITHIN)
        if event is None:
            return False
        if event.takes > MOST_TAKES:
            log.error("event given up: who handles it dies", extra={"event": event.id})
            return self._stores.events.refuse(event, _DEADLY)
        try:
            with self._kept_in_hand(event):
                task = self._handled(event)
        except Unavailable as error:
            self._stores.events.put_off(event, str(error), self._after(event))
            return False
        except Refusal as error:
            log.info("event refused", extra={"event": event.id, "reason": str(error)})
            return self._stores.events.refuse(event, str(error))
        except Exception as error:
            log.exception("event cannot be handled", extra={"event": event.id})
            return self._mistake(event, error)
        log.info("event handled", extra={"event": event.id, "task": task})
        return self._stores.events.done(event, task)

    def _handled(self, event: Event) -> str | None:
        receiver = self._stores.receivers.find(event.receiver)
        if receiver is None:
            raise NotFound("Its receiver has been removed: add one and send it there.")
        return self._intake.kind(event.kind).handle(receiver, event)

    def _mistake(self, event: Event, error: Exception) -> bool:
        if event.faults + 1 < MOST_FAULTS:
            why = f"The server made a mistake ({type(error).__name__}) and tries it again."
            self._stores.events.put_off(event, why, self._after(event), fault=True)
            return False
        why = (
            f"The server made a mistake at it {MOST_FAULTS} times, the last {type(error).__name__}; its log says more. "
            "Nothing is lost: have it handled again once that is mended."
        )
        return self._stores.events.refuse(event, why)

    def _after(self, event: Event) -> datetime:
        return self._stores.clock.now() + rest(event.tries)

    @contextmanager
    def _kept_in_hand(self, event: Event) -> Iterator[None]:
        """Say now and then that it is being handled: fetching a repository takes minutes."""
        ended = threading.Event()

        def say() -> None:
            while not ended.wait(HANDLED_WITHIN.total_seconds() / 3):
                try:
                    self._stores.events.touch(event, self._stores.clock.now())
                except Unavailable:
                    log.warning("event cannot be touched", extra={"event": event.id})

        saying = threading.Thread(target=say, name="event", daemon=True)
        saying.start()
        try:
            yield
        finally:
            ended.set()
            saying.join()

    def clear(self) -> int:
        """Forget events that ended long ago; how many."""
        now = self._stores.clock.now()
        return self._stores.events.forget(done_before=now - KEPT_DONE, refused_before=now - KEPT_REFUSED)
