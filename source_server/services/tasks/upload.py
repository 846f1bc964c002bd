"""A task's data arrives in one all-or-nothing step; until it is whole, nothing of it is visible."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from source_server.domain.chunk import Chunk
from source_server.domain.job import Job
from source_server.domain.refusal import BadInput, Conflict, Unavailable
from source_server.domain.table import MAX_FIELDS, MAX_NAMES, Cut, Lines, Row, csv_rows, cut, jsonl_rows
from source_server.domain.task import Task, TaskState, Upload
from source_server.domain.wish import needed_fields
from source_server.services.files.blobs import Blobs
from source_server.services.files.inputs import Inputs
from source_server.services.tasks.parquet import parquet_rows
from source_server.stores.chunks import new_rev
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

log = logging.getLogger(__name__)

BATCH = 1000  #: chunks stored in one go
BATCH_BYTES = 4 * 1024 * 1024  #: or so many bytes of input
REMOVED_AT_ONCE = 10_000  #: chunks of a failed upload, before its sender is told; it takes a second or two
QUIET = timedelta(seconds=60)  #: silence after which another attempt may take an unfinished upload's place

READERS: dict[str, Callable[[Lines], Iterator[Row]]] = {
    "text/csv": csv_rows,
    "application/jsonl": jsonl_rows,
    "application/vnd.apache.parquet": parquet_rows,
}


@dataclass
class _Seen:
    """What has passed so far: the digest of the body, the names of the fields, and counts."""

    digest: hashlib._Hash
    fields: dict[str, None]
    chunks: int = 0
    rows: int = 0
    large: bool = False  #: some input is a file

    def body(self, raw: Iterable[bytes]) -> Iterator[bytes]:
        for line in raw:
            self.digest.update(line)
            yield line

    def named(self, rows: Iterable[Row]) -> Iterator[Row]:
        last: tuple[str, ...] = ()
        for row in rows:
            if row.names != last:
                self.fields.update(dict.fromkeys(row.names))
                last = row.names
                if sum(map(len, self.fields)) > MAX_NAMES:
                    raise BadInput(f"Line {row.line} brings the field names over {MAX_NAMES} letters.")
            if len(self.fields) > MAX_FIELDS:
                raise BadInput(f"Line {row.line} brings the number of field names over {MAX_FIELDS}.")
            self.rows += 1
            yield row


class ReceiveUpload:
    """Stores a streamed table as the chunks of a waiting task."""

    def __init__(self, stores: Stores, inputs: Inputs | None = None) -> None:
        self._stores = stores
        self._inputs = inputs or Inputs(Blobs(stores))

    def __call__(
        self,
        task: Task,
        upload_id: str,
        kind: str,
        raw: Iterable[bytes],
        *,
        bytes_per_chunk: int | None = None,
    ) -> Upload:
        """The upload as it stands; the same id and body again is the same upload. Raises BadInput or Conflict.

        With `bytes_per_chunk` a chunk has as many rows as fit into so many bytes, but never more than the task says.
        """
        reader = READERS.get(kind)
        if reader is None:
            raise BadInput(f"The data must be {' or '.join(READERS)}, not {kind or 'without a type'}.")
        if task.upload is not None and task.upload.complete:
            return self._repeated(task, task.upload, upload_id, raw)
        attempt = self._begin(task, upload_id)
        try:
            self._stores.chunks.remove_other_uploads(task.id, attempt.attempt)
            return self._receive(task, attempt, reader, raw, bytes_per_chunk)
        except BaseException:
            self._abandon(task, attempt, most=REMOVED_AT_ONCE)
            raise

    def clean(self, task: Task) -> bool:
        """Housekeeping: remove what an upload that died left behind; whether there was any."""
        upload = task.upload
        if upload is None or upload.complete or upload.touched is None:
            return False
        if self._stores.clock.now() - upload.touched < 2 * QUIET:
            return False
        self._abandon(task, upload)
        return True

    def _begin(self, task: Task, upload_id: str) -> Upload:
        now = self._stores.clock.now()
        attempt = Upload(id=upload_id, attempt=uuid.uuid4().hex[:16], touched=now)
        if not self._stores.tasks.begin_upload(task.id, attempt, quiet_since=now - QUIET):
            if task.state is not TaskState.WAITING or task.cancelled:
                raise Conflict("The task has been started or cancelled: it takes no more data.")
            if task.upload is not None and task.upload.id == upload_id:
                # Most likely the same upload, sent again after its server died: its place becomes free by itself.
                raise Unavailable(
                    f"This upload is under way, or broke off less than {QUIET.seconds} s ago; send it again."
                )
            raise Conflict(
                f"Another upload to this task is under way; wait for it, or for {QUIET.seconds} s of its silence."
            )
        return attempt

    def _receive(
        self,
        task: Task,
        attempt: Upload,
        reader: Callable[[Lines], Iterator[Row]],
        raw: Iterable[bytes],
        bytes_per_chunk: int | None,
    ) -> Upload:
        seen = _Seen(hashlib.sha256(), {})
        rows = seen.named(reader(Lines(self._alive(task, attempt, seen.body(raw)))))
        cuts = cut(
            rows,
            rows_per_chunk=task.rows_per_chunk,
            needed=needed_fields(task.job),
            bytes_per_chunk=bytes_per_chunk,
        )
        for batch in _batches(cuts):
            stored = self._store(task, attempt, batch)
            seen.large = seen.large or any(one.input_file is not None for one in stored)
            seen.chunks += len(batch)
        if not seen.chunks:
            raise BadInput("The upload has no rows.")
        whole = replace(
            attempt,
            complete=True,
            touched=self._stores.clock.now(),
            digest=seen.digest.hexdigest(),
            chunks=seen.chunks,
            rows=seen.rows,
        )
        if not self._stores.tasks.seal(task.id, whole, list(seen.fields), large_inputs=seen.large):
            raise Conflict(
                "Another upload has taken this one's place, or the task was cancelled: look at the task first."
            )
        return whole

    def _repeated(self, task: Task, upload: Upload, upload_id: str, raw: Iterable[bytes]) -> Upload:
        """The task's data, sent again: acknowledged only once a majority has it."""
        if upload.id != upload_id:
            raise Conflict(f"The task has its data already, from the upload {upload.id}; make another task.")
        digest = hashlib.sha256()
        for line in raw:
            digest.update(line)
        if digest.hexdigest() != upload.digest:
            raise Conflict("The task has other data, uploaded under this id: make another task.")
        if not self._stores.tasks.confirm_upload(task.id, upload):
            raise Unavailable("The database has just lost this upload; send it again.")
        return upload

    def _alive(self, task: Task, attempt: Upload, raw: Iterable[bytes]) -> Iterator[bytes]:
        """The lines, saying now and then that they still come: a batch may take minutes on a slow line."""
        due = time.monotonic()
        for line in raw:
            if time.monotonic() >= due:
                self._touch(task, attempt)
                due = time.monotonic() + QUIET.total_seconds() / 4
            yield line

    def _touch(self, task: Task, attempt: Upload) -> None:
        if not self._stores.tasks.touch_upload(task.id, attempt.attempt, self._stores.clock.now()):
            raise Conflict(
                "Another upload has taken this one's place: look at the task before sending it again."
            )

    def _store(self, task: Task, attempt: Upload, batch: list[Cut]) -> list[Chunk]:
        self._touch(task, attempt)
        run = self._stores.removals.first_run(task.id)
        made = [(new_chunk(task, attempt, one, run=run), one) for one in batch]
        chunks = self._inputs.complete(task, made)
        try:
            self._stores.chunks.add(chunks)
        except AlreadyThere as error:
            raise Conflict(
                "An earlier upload of this task is still being cleared away; send it again."
            ) from error
        self._inputs.require_still(task, chunks)
        return chunks

    def _abandon(self, task: Task, attempt: Upload, *, most: int | None = None) -> None:
        """Remove what it brought; of more than `most` chunks the rest is left to housekeeping, as somebody waits."""
        try:
            # Fenced first: nobody can seal what is being removed. Freed last: a crash leaves it to housekeeping.
            fenced = self._stores.tasks.fence_upload(task.id, attempt.attempt)
            if not fenced and self._is_sealed(task, attempt):
                return  # only the answer to the seal was lost: this is the task's data
            if self._stores.chunks.remove_upload(task.id, attempt.attempt, most=most) == most:
                return
            self._stores.tasks.free_upload(task.id, attempt.attempt)
        except Unavailable as error:
            log.warning("failed upload left to housekeeping", extra={"task": task.id, "reason": str(error)})

    def _is_sealed(self, task: Task, attempt: Upload) -> bool:
        found = self._stores.tasks.find(task.id)
        upload = None if found is None else found.upload
        return upload is not None and upload.complete and upload.attempt == attempt.attempt


def _batches(cuts: Iterable[Cut]) -> Iterator[list[Cut]]:
    batch: list[Cut] = []
    size = 0
    for one in cuts:
        batch.append(one)
        size += len(one.text)
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def new_chunk(task: Task, attempt: Upload, one: Cut, *, run: int = 0) -> Chunk:
    """A chunk of the task's data; raises BadInput for a row that cannot be one. `run`: see `Removals.first_run`."""
    return Chunk(
        id=f"{task.id}.{one.n}",
        project=task.project,
        task=task.id,
        n=one.n,
        r=random.random(),
        rev=new_rev(),
        upload=attempt.attempt,
        run=run,
        replicas=task.validation.first_replicas,
        wanted=task.validation.first_replicas,
        input=one.text,
        rows=one.rows,
        first_row=one.first_row,
        variant=_variant(task.job, one),
    )


def _variant(job: Job, one: Cut) -> str | None:
    """The variant that a row names for itself; raises BadInput for one that the job does not have."""
    if job.variant_field is None:
        return None
    named = json.loads(one.text).get(job.variant_field)
    if all(named != variant.name for variant in job.variants):
        known = ", ".join(variant.name for variant in job.variants)
        raise BadInput(f"Row {one.n + 1} names the variant {named!r}, which the job does not have ({known}).")
    return str(named)
