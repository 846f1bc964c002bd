"""What the kinds of receivers share: strict settings, secrets, and templates of tasks.

A new kind is one file with a class on `Plug`, named in `registry.kinds`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator

from source_server.domain.account import key_hash
from source_server.domain.receiver import Arrival, Event, Offer, Receiver
from source_server.domain.refusal import BadInput, Refusal, UnknownKey
from source_server.domain.wish import require_sound
from source_server.web import wire
from source_server.web.bodies import wishes
from source_server.web.bodies.task_wish import wish

SIGNATURE = "x-hub-signature-256"  #: the header in which GitHub and others send `sha256=HEX`


def template_body(template: Mapping[str, Any], task_id: str) -> wishes.TaskBody:
    """The body of the task with this id; raises BadInput."""
    return wire.read(wishes.TaskBody, {**template, "id": task_id})


@contextmanager
def sentence_of() -> Iterator[None]:
    """Within a settings model: a refusal's sentence becomes the model's own complaint."""
    try:
        yield
    except Refusal as error:
        raise ValueError(str(error).rstrip(".")) from error


def _sound(template: dict[str, Any]) -> dict[str, Any]:
    with sentence_of():
        if "id" in template:
            raise BadInput("A template has no 'id': each task of it gets its own.")
        if template.get("open_ended"):
            raise BadInput("A template is not open-ended: each task of it has its data.")
        require_sound(wish("", template_body(template, "a")))
    return template


#: A body of `POST /projects/NAME/tasks` without `id`; data is all that is added to it.
Template = Annotated[dict[str, Any], AfterValidator(_sound)]

Settings = TypeVar("Settings", bound=wire.Strict)


class Plug(Generic[Settings]):
    """A kind with settings of the shape `settings_model`; by itself it lets nothing in."""

    name: str
    slow: bool = False
    timed: bool = False
    streams: bool = False
    most_bytes: int = wire.MAX_BODY
    settings_model: type[Settings]

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, checked; as they were said."""
        return wire.read(self.settings_model, dict(settings)).model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )

    def settings_of(self, receiver: Receiver) -> Settings:
        """A receiver's settings as this kind's value."""
        return wire.read(self.settings_model, dict(receiver.settings))

    def keeps_secret(self, settings: Mapping[str, Any]) -> bool:
        """Unless a kind computes with its secret, the hash is enough."""
        return False

    def new_secret(self) -> str:
        """256 random bits."""
        return f"dcr_{secrets.token_urlsafe(32)}"

    def where(self, receiver: Receiver, secret: str | None) -> str:
        """A path of this server."""
        return f"/in/{receiver.id}"

    def admit(self, receiver: Receiver, arrival: Arrival) -> Offer:
        """Nothing comes over HTTP, unless the kind says so."""
        raise BadInput(f"A receiver of the kind {self.name} takes nothing over HTTP.")

    def in_order(self, receiver: Receiver) -> bool:
        """Each event is a task of its own, unless the kind says otherwise."""
        return False

    def due(self, receiver: Receiver, now: datetime) -> Offer | None:
        """Nothing comes by itself, unless the kind says so."""
        return None

    def next_due(self, receiver: Receiver, now: datetime) -> datetime | None:
        """Nothing comes by itself, unless the kind says so."""
        return None

    def handle(self, receiver: Receiver, event: Event) -> str | None:
        """What becomes of an event."""
        raise NotImplementedError


def require_bearer(receiver: Receiver, arrival: Arrival) -> None:
    """Raises UnknownKey unless the request shows the receiver's secret as `Authorization: Bearer SECRET`."""
    kind, _, shown = arrival.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(key_hash(shown.strip()), receiver.secret_hash):
        raise UnknownKey("Show this receiver's secret as `Authorization: Bearer SECRET`.")


def require_signature(receiver: Receiver, arrival: Arrival, header: str = SIGNATURE) -> None:
    """Raises UnknownKey unless the body is signed: HMAC-SHA256 with the receiver's secret, as `sha256=HEX`."""
    made = hmac.new((receiver.secret or "").encode(), arrival.body, hashlib.sha256).hexdigest()
    shown = arrival.headers.get(header, "")
    if not receiver.secret or not hmac.compare_digest(
        f"sha256={made}".encode(), shown.encode("utf-8", "surrogateescape")
    ):
        raise UnknownKey(f"The body must be signed with this receiver's secret, in the header {header}.")
