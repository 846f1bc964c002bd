"""The ways into a project, and what comes through them: stored first, acknowledged then, handled afterwards."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from source_server.domain.account import Account, key_hash
from source_server.domain.receiver import (
    MAX_PAYLOAD,
    MAX_SETTINGS,
    MOST_ABOUT,
    MOST_HELD,
    MOST_OPEN,
    MOST_RECEIVERS,
    Arrival,
    Event,
    EventState,
    Offer,
    Receiver,
    digest,
    event_id,
)
from source_server.domain.refusal import (
    BadInput,
    Conflict,
    NotFound,
    TooLarge,
    TooMany,
)
from source_server.services.tasks.tasks import Tasks
from source_server.stores.database import Stores


class Kind(Protocol):
    """One kind of receiver: what its settings are, what it takes in, and what it makes of it.

    `admit` and `due` are quick and change nothing; `handle` may be broken off anywhere and done again, by two at once.
    """

    name: str  #: as the API calls it
    timed: bool  #: whether time itself brings events: `due` is asked when `next_due` has come
    streams: bool  #: whether it reads an arrival's body itself, from its stream: of any size
    most_bytes: int  #: of an arrival that it does not stream
    slow: bool  #: whether an event of it may take longer than a second: it is handled apart from the others

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, complete, as JSON values; raises BadInput with a sentence that names the field."""

    def keeps_secret(self, settings: Mapping[str, Any]) -> bool:
        """Whether the secret itself has to be kept, as a signature is computed with it; else only its hash is."""

    def new_secret(self) -> str:
        """A new secret in the form in which it is shown to this kind."""

    def where(self, receiver: Receiver, secret: str | None) -> str:
        """Where things are sent to: a path of this server, or an address of another kind; empty: nowhere."""

    def admit(self, receiver: Receiver, arrival: Arrival) -> Offer:
        """What has come; raises UnknownKey for a wrong secret, BadInput for what it does not understand."""

    def in_order(self, receiver: Receiver) -> bool:
        """Whether its events are handled one after the other, as they came; else none waits for another."""

    def due(self, receiver: Receiver, now: datetime) -> Offer | None:
        """What time itself brings (a schedule): its key is the planned time in ISO 8601; None: nothing now."""

    def next_due(self, receiver: Receiver, now: datetime) -> datetime | None:
        """When time brings something after now; None: not in sight."""

    def handle(self, receiver: Receiver, event: Event) -> str | None:
        """Make the task and answer its id (None: there is nothing to do). Any Refusal but Unavailable is final."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A new receiver; `secret` is shown this once."""

    receiver: Receiver
    secret: str


class Intake:
    """Receivers and their events; `kinds` are told apart by name."""

    def __init__(self, stores: Stores, tasks: Tasks, kinds: Sequence[Kind]) -> None:
        self._stores = stores
        self._tasks = tasks
        self.kinds = {kind.name: kind for kind in kinds}

    # --- receivers

    def add(self, account: Account, project: str, kind: str, settings: Mapping[str, Any]) -> Made:
        """Make a receiver of a project; raises BadInput, NotFound, TooLarge, or TooMany."""
        self._tasks.require_project(account, project)
        chosen = self.kind(kind)
        # Before they are checked, which takes more than their size.
        if len(json.dumps(settings)) > MAX_SETTINGS:
            raise TooLarge(
                f"A receiver's settings have at most {MAX_SETTINGS} bytes: store what is larger as a file "
                "(PUT /blobs/SHA256) and name it there; a schedule does so in 'data'."
            )
        whole = chosen.read(settings)
        if self._stores.receivers.count(project) >= MOST_RECEIVERS:
            raise TooMany(f"A project has at most {MOST_RECEIVERS} receivers: remove one first.")
        secret, now = chosen.new_secret(), self._stores.clock.now()
        receiver = Receiver(
            id=f"r{secrets.token_hex(8)}",
            project=project,
            kind=kind,
            settings=whole,
            created=now,
            secret=secret if chosen.keeps_secret(whole) else None,
            secret_hash=key_hash(secret),
            planned=now,
        )
        self._stores.receivers.add(receiver)
        return Made(receiver=receiver, secret=secret)

    def of(self, account: Account, project: str) -> list[Receiver]:
        """A project's receivers, oldest first."""
        self._tasks.require_project(account, project)
        return self._stores.receivers.of_project(project, limit=MOST_RECEIVERS)

    def remove(self, account: Account, project: str, receiver_id: str) -> None:
        """Close a way in. What waits there is refused when its turn comes; tasks that it made stay."""
        self._tasks.require_project(account, project)
        found = self._stores.receivers.find(receiver_id)
        if found is None:
            # Gone, as who asked before and heard nothing takes this to say: a majority has to know.
            self._stores.receivers.remove(receiver_id)
        if found is None or found.project != project:
            raise NotFound(f"There is no receiver {receiver_id} in the project {project}.")
        self._stores.receivers.remove(receiver_id)
        self._stores.events.empty(receiver_id)

    def kind(self, name: str) -> Kind:
        """The kind of this name; raises BadInput."""
        if name not in self.kinds:
            raise BadInput(
                f"There is no kind {name!r} of receiver; kinds are {', '.join(sorted(self.kinds))}."
            )
        return self.kinds[name]

    # --- events come

    def find(self, receiver_id: str) -> Receiver:
        """The receiver at this address; raises NotFound."""
        receiver = self._stores.receivers.find(receiver_id)
        if receiver is None:
            raise NotFound(f"There is no receiver {receiver_id}; it may have been removed.")
        return receiver

    def find_by_secret(self, secret: str, kind: str) -> Receiver | None:
        """The receiver of this kind with this secret, or None. Looked up by hash: timing tells nothing of it."""
        return self._stores.receivers.find_by_secret(key_hash(secret), kind)

    def take(self, receiver: Receiver, arrival: Arrival) -> Event:
        """Store what has come, with a majority; the event, new or as it is from before.

        Raises UnknownKey, BadInput, Conflict (known, with other contents), TooLarge, TooMany or Unavailable.
        """
        return self.store(receiver, self.kind(receiver.kind).admit(receiver, arrival))

    def store(self, receiver: Receiver, offer: Offer) -> Event:
        """Store an offer of a receiver; raises as `take` does."""
        event = self._event(receiver, offer)
        if self._stores.events.find(event.id) is None:
            self._require_room(receiver, event)
        # Of an event that is there, too: only a majority's word is an acknowledgement.
        self._stores.events.put(event)
        stored = self._stores.events.find(event.id) or event
        if stored.digest != event.digest:
            raise Conflict(f"{offer.key[:100]!r} came before with other contents: give this another id.")
        return stored

    def _event(self, receiver: Receiver, offer: Offer) -> Event:
        if len(offer.payload) > MAX_PAYLOAD:
            raise TooLarge(
                f"This has {len(offer.payload)} bytes and a receiver takes {MAX_PAYLOAD} at once: "
                "send the data to a receiver of the kind upload."
            )
        if sum(len(name) + len(value) for name, value in offer.about.items()) > MOST_ABOUT:
            raise TooLarge(f"What goes with it has more than {MOST_ABOUT} letters.")
        if not 0 < len(offer.key) <= 1000:
            raise BadInput("What names an event has 1 to 1,000 letters.")
        return Event(
            id=event_id(receiver.id, offer.key),
            receiver=receiver.id,
            project=receiver.project,
            kind=receiver.kind,
            key=offer.key,
            received=self._stores.clock.now(),
            digest=digest(offer),
            about=dict(offer.about),
            payload=offer.payload,
            blob=offer.blob,
            bytes=len(offer.payload),
        )

    def _require_room(self, receiver: Receiver, event: Event) -> None:
        waiting, held = self._stores.events.load(receiver.id, most=MOST_OPEN)
        if waiting >= MOST_OPEN:
            raise TooMany(f"{waiting} events of this receiver wait to be handled: send it again later.")
        if event.bytes and held + event.bytes > MOST_HELD:
            raise TooMany(
                f"Events of this receiver hold {held} bytes already: handle or remove the refused ones first."
            )

    # --- events are looked at

    def events(
        self, account: Account, project: str, *, receiver: str | None, before: str | None, limit: int
    ) -> list[Event]:
        """A project's events without what they brought, newest first; `before` is the last one of the page before."""
        self._tasks.require_project(account, project)
        last = None if before is None else self._stores.events.find(before)
        if before is not None and (last is None or last.project != project):
            raise BadInput(f"There is no event {before} in this project to go on from.")
        return self._stores.events.page(project, receiver=receiver, before=last, limit=limit)

    def again(self, account: Account, project: str, event_id: str) -> Event:
        """Have a refused event handled anew; raises NotFound, or Conflict when it is not refused."""
        self._tasks.require_project(account, project)
        found = self._stores.events.find(event_id)
        if found is None or found.project != project:
            raise NotFound(f"There is no event {event_id} in the project {project}.")
        if not self._stores.events.again(event_id):
            raise Conflict("Only an event that was refused is handled again.")
        return replace(found, state=EventState.NEW, why=None)
