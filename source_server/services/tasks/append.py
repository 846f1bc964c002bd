"""Rows are added to an open-ended task while it runs: all of a request's, or none; in the order in which they came.

What is to be added is written on the task first, in the one write that also takes the next numbers. So a process that
dies afterwards loses nothing: the next request, or housekeeping, makes the chunks, and making them twice changes
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from source_server.domain.appending import Appended, Appending
from source_server.domain.refusal import BadInput, Conflict, TooLarge, Unavailable
from source_server.domain.table import MAX_FIELDS, MAX_NAMES, Cut, Lines, cut, jsonl_rows
from source_server.domain.task import Task
from source_server.domain.wish import needed_fields
from source_server.services.files.blobs import Blobs
from source_server.services.files.inputs import Inputs
from source_server.services.tasks.upload import new_chunk
from source_server.stores.database import Stores

MOST_ROWS = 1000
MOST_BYTES = 512 * 1024  #: of the rows of one request: they lie on the task for a moment
TRIES = 50


class Append:
    """Adds rows to tasks, and closes them."""

    def __init__(self, stores: Stores, inputs: Inputs | None = None) -> None:
        self._stores = stores
        self._inputs = inputs or Inputs(Blobs(stores))

    def __call__(self, task: Task, key: str, rows: Sequence[Mapping[str, Any]]) -> Appended:
        """Add rows, one a chunk; the same key again answers what it added. Raises BadInput, TooLarge or Conflict."""
        texts, names = _read(task, rows, self._inputs)
        for _ in range(TRIES):
            known = self._stores.appends.known(task.id, key)
            if known is not None:
                return known
            _require_open(task)
            if task.appending is not None:
                self.finish(task)
            else:
                new = _next(task, key, texts, names)
                if self._stores.appends.begin(task.id, new):
                    self._carry_out(task, new)
                    return Appended(key=key, n=new.n, count=len(new.texts))
            task = self._again(task.id)
        raise Unavailable("Many add rows to this task at the same time; send the same request again.")

    def finish(self, task: Task) -> None:
        """Carry out what a request wrote down: it is doing so at this moment, or died."""
        if task.appending is not None:
            self._carry_out(task, task.appending)

    def close(self, task: Task) -> None:
        """Take no more rows: the task ends with its last chunk. Raises Conflict for one that was never open."""
        for _ in range(TRIES):
            if not task.open_ended:
                if task.upload is not None and task.upload.id == OPEN:
                    # Closed before: by who asked and heard nothing, perhaps.
                    if self._stores.appends.confirm_closed(task.id):
                        return
                    raise Unavailable("The task was changed at this moment; send the same request again.")
                raise Conflict("The task is not open-ended: its data came in one piece.")
            self.finish(task)
            self._stores.appends.close(task.id)
            task = self._again(task.id)
        raise Unavailable("Many add rows to this task at the same time; send the same request again.")

    def _carry_out(self, task: Task, new: Appending) -> None:
        assert task.upload is not None
        cuts = [
            Cut(n=new.n + place, text=text, rows=None, first_row=new.n + place)
            for place, text in enumerate(new.texts)
        ]
        run = self._stores.removals.first_run(task.id)
        made = [(new_chunk(task, task.upload, one, run=run), one) for one in cuts]
        # What it names was looked at when it came: from here on nothing can refuse it any more.
        chunks = self._inputs.complete(task, made, strict=False)
        if any(one.input_file is not None for one in chunks) and not task.large_inputs:
            self._stores.tasks.note_large_inputs(task.id)
        self._stores.chunks.ensure(chunks)
        self._stores.appends.end(task.id, new, self._stores.clock.now())

    def _again(self, task_id: str) -> Task:
        task = self._stores.tasks.find(task_id)
        if task is None:
            raise Conflict("The task was removed meanwhile.")
        return task


OPEN = "open"  #: the one upload of every open-ended task


def _read(
    task: Task, rows: Sequence[Mapping[str, Any]], inputs: Inputs
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows as JSON texts, checked as an upload's are, and the names of their fields."""
    if not 0 < len(rows) <= MOST_ROWS:
        raise BadInput(f"A request adds 1 to {MOST_ROWS} rows.")
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    if sum(map(len, lines)) > MOST_BYTES:
        raise TooLarge(f"The rows of a request have at most {MOST_BYTES} bytes; send them in several.")
    cuts = cut(jsonl_rows(Lines(lines)), rows_per_chunk=1, needed=needed_fields(task.job))
    names = dict.fromkeys(name for row in rows for name in row)
    if task.upload is None:
        raise Conflict("The task takes no more rows: it is not open-ended.")
    made = [(new_chunk(task, task.upload, one), one) for one in cuts]
    inputs.require_files(task, made)
    return tuple(one.text for _, one in made), tuple(names)


def _next(task: Task, key: str, texts: tuple[str, ...], names: Iterable[str]) -> Appending:
    assert task.upload is not None
    fields = tuple(dict.fromkeys([*task.fields, *names]))
    if len(fields) > MAX_FIELDS or sum(map(len, fields)) > MAX_NAMES:
        raise BadInput(
            f"The rows would bring the task over {MAX_FIELDS} field names, or {MAX_NAMES} letters of them."
        )
    return Appending(key=key, n=task.upload.chunks, texts=texts, fields=fields)


def _require_open(task: Task) -> None:
    if task.cancelled:
        raise Conflict("The task was cancelled: it takes no more rows.")
    if not task.open_ended or task.upload is None:
        raise Conflict("The task takes no more rows: it is not open-ended, or was closed.")
