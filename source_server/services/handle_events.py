"""Events become tasks: housekeeping's part of taking work in. Any step may be broken off and done again."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from source_server.domain.receiver import (
    HANDLED_WITHIN,
    KEPT_DONE,
    KEPT_REFUSED,
    MOST_FAULTS,
    Event,
    EventState,
    Receiver,
    rest,
)
from source_server.domain.refusal import NotFound, Refusal, Unavailable
from source_server.services.intake import Intake, Kind
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

BATCH = 50  #: events handled in one step of housekeeping


class HandleEvents:
    """Handles what `Intake` has stored; several of them side by side do no harm."""

    def __init__(self, stores: Stores, intake: Intake) -> None:
        self._stores = stores
        self._intake = intake

    def plan(self) -> int:
        """Store what time itself brings; how many events are new."""
        now, new = self._stores.clock.now(), 0
        for kind in (one for one in self._intake.kinds.values() if one.timed):
            for receiver in self._stores.receivers.of_kind(kind.name):
                try:
                    new += self._planned(kind, receiver, now)
                except Unavailable:
                    raise
                except Exception:  # one of them must not hold the others up
                    log.exception("schedule cannot be followed", extra={"receiver": receiver.id})
        return new

    def _planned(self, kind: Kind, receiver: Receiver, now: datetime) -> bool:
        offer = kind.due(receiver, now)
        if offer is None:
            return False
        # The event first: if this process dies in between, the same event is found there next time.
        event = self._intake.store(receiver, offer)
        self._stores.receivers.note_planned(receiver.id, datetime.fromisoformat(offer.key))
        return event.state is EventState.NEW

    def work(self, *, slow: bool) -> int:
        """Handle events that are due, of quick kinds or of slow ones; how many came to an end."""
        kinds = [kind.name for kind in self._intake.kinds.values() if kind.slow is slow]
        now, ended = self._stores.clock.now(), 0
        due = self._stores.events.due(now, kinds, silent_since=now - HANDLED_WITHIN, limit=BATCH)
        for one, receiver_id in due:
            ended += self._is_its_turn(one, receiver_id) and self.handle(one)
        return ended

    def _is_its_turn(self, event_id: str, receiver_id: str) -> bool:
        receiver = self._stores.receivers.find(receiver_id)
        if receiver is None or not self._intake.kind(receiver.kind).in_order(receiver):
            return True
        return self._stores.events.first_open(receiver_id) == event_id

    def handle(self, event_id: str) -> bool:
        """Handle one event, if nobody else does; whether it came to its end."""
        now, hand = self._stores.clock.now(), uuid.uuid4().hex
        event = self._stores.events.take(event_id, hand, now, silent_since=now - HANDLED_WITHIN)
        if event is None:
            return False
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
