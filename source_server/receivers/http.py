"""Work over HTTP: rows for a stored template, or a job of the sender's own with rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from source_server.domain.receiver import Arrival, Event, Offer, Receiver, task_id
from source_server.domain.refusal import BadInput, NotFound, TooLarge
from source_server.domain.table import Lines, cut, jsonl_rows
from source_server.domain.wish import needed_fields
from source_server.receivers.fill import Data, Fill
from source_server.receivers.plug import (
    Plug,
    Template,
    require_bearer,
    require_signature,
    template_body,
)
from source_server.services.accounts.people import People
from source_server.services.tasks.append import MOST_BYTES, MOST_ROWS, Append
from source_server.services.tasks.tasks import Tasks
from source_server.web import wire
from source_server.web.bodies import wishes
from source_server.web.bodies.job import job

JSONL = "application/jsonl"


class HttpSettings(wire.Strict):
    """Of a receiver of the kind `http`."""

    template: Template | None = None  #: None: each message brings its own job, or goes to
    append_to: wishes.TaskId | None = None  #: an open-ended task, which rows are added to
    signed: bool = False  #: messages are signed (X-Hub-Signature-256) in the place of showing the secret

    @model_validator(mode="after")
    def _one_way(self) -> HttpSettings:
        if self.template is not None and self.append_to is not None:
            raise ValueError("say either 'template' or 'append_to'")
        return self


class HttpBody(wire.Strict):
    """`POST /in/RECEIVER`."""

    id: wishes.TaskId | None = None
    job: Template | None = None
    rows: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Http(Plug[HttpSettings]):
    """`POST /in/RECEIVER {rows, id?, job?}`: one message, one task."""

    name = "http"
    settings_model = HttpSettings

    def __init__(self, fill: Fill, people: People, tasks: Tasks, append: Append) -> None:
        self._fill, self._people, self._tasks, self._append = fill, people, tasks, append

    def keeps_secret(self, settings: Mapping[str, Any]) -> bool:
        """A signature is computed with it."""
        return bool(settings.get("signed"))

    def admit(self, receiver: Receiver, arrival: Arrival) -> Offer:
        """A message that could become a task."""
        settings = self.settings_of(receiver)
        (require_signature if settings.signed else require_bearer)(receiver, arrival)
        body = wire.parse(HttpBody, arrival.body)
        lines = [json.dumps(row).encode() + b"\n" for row in body.rows]
        if settings.append_to is not None:
            return _more_rows(body, lines)
        template = _template(settings, body)
        require_fitting(template, lines)
        if body.job is not None:  # goes before the rows: it may be large, and is nothing for lists
            lines.insert(0, json.dumps(template, sort_keys=True).encode() + b"\n")
        return _offer(body, lines)

    def in_order(self, receiver: Receiver) -> bool:
        """Rows of an open-ended task: of the keys with which they were added it remembers only the last ones."""
        return receiver.settings.get("append_to") is not None

    def handle(self, receiver: Receiver, event: Event) -> str:
        """The task of this message."""
        settings, lines = self.settings_of(receiver), event.payload.splitlines(keepends=True)
        if settings.append_to is not None:
            task = self._tasks.get(self._people.owner_of(receiver.project), settings.append_to)
            if task.project != receiver.project:
                raise NotFound(f"There is no task {task.id} in the project {receiver.project}.")
            self._append(task, event.id, [json.loads(line) for line in lines])
            return task.id
        template = settings.template or json.loads(lines.pop(0))
        chosen = event.about["id"] or task_id(receiver.id, event.key)
        return self._fill(receiver, template, chosen, Data(kind=JSONL, lines=lambda: lines))


def _more_rows(body: HttpBody, lines: list[bytes]) -> Offer:
    """Rows for a task that is there already; whether they fit, it says itself."""
    if body.job is not None:
        raise BadInput("This receiver adds rows to a task: send 'rows' without 'job'.")
    if len(lines) > MOST_ROWS or sum(map(len, lines)) > MOST_BYTES:
        raise TooLarge(
            f"A message adds at most {MOST_ROWS} rows of together {MOST_BYTES} bytes: send several."
        )
    return _offer(body, lines)


def _offer(body: HttpBody, lines: list[bytes]) -> Offer:
    return Offer(key=body.id or uuid.uuid4().hex, payload=b"".join(lines), about={"id": body.id or ""})


def _template(settings: HttpSettings, body: HttpBody) -> dict[str, Any]:
    if settings.template is not None and body.job is not None:
        raise BadInput("This receiver has a job of its own: send 'rows' without 'job'.")
    template = settings.template or body.job
    if template is None:
        raise BadInput("This receiver has no job of its own: send 'job' with the 'rows'.")
    return template


def require_fitting(template: Mapping[str, Any], lines: Iterable[bytes]) -> None:
    """Raises BadInput when these JSON lines could not become chunks of such a task."""
    body = template_body(template, "a")
    rows = jsonl_rows(Lines(lines))
    for _ in cut(rows, rows_per_chunk=body.rows_per_chunk, needed=needed_fields(job(body))):
        pass
