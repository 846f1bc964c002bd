"""The table of results: one line an input row, in input order, streamed in constant memory, at any time.

Pages are found by chunk number alone, so an export holds nothing open on the server between two of them, survives a
change of primary, and can go on from any line with any server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from source_server.domain.chunk import Chunk
from source_server.domain.refusal import BadInput
from source_server.domain.table import rows_of
from source_server.domain.task import Task
from source_server.services.files.blobs import Blobs
from source_server.services.files.inputs import Inputs
from source_server.stores.database import Stores

SMALLEST_PAGE = 4  #: chunks read at once, at first and where they are large
LARGEST_PAGE = 256  #: and where they are small
PAGE_BYTES = 512 * 1024  #: inputs and answers that a page should come to


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who computed a chunk, on what, and when by its own word; all None while there is no result."""

    verdict: str | None = None
    account: str | None = None  #: pseudonym
    host: str | None = None
    container: str | None = None
    runtime: str | None = None
    self_test: str | None = None
    image: str | None = None
    variant: str | None = None
    files: Sequence[Mapping[str, Any]] = ()  #: name, sha256 and bytes of each that the answer brought
    run: int | None = None
    attempt: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportedChunk:
    """A chunk's lines of the table: `rows` and, once there is a result, as many `answers`."""

    task: str
    n: int
    first_row: int
    rows: Sequence[Mapping[str, Any]]
    answers: Sequence[str] | None
    state: str
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The last line that was received: the export goes on behind it."""

    task: str
    n: int
    row: int


def cursor(text: str) -> Cursor:
    """Read a cursor TASK.N.ROW, the first three columns of a line; raises BadInput."""
    task, _, rest = text.partition(".")
    n, _, row = rest.partition(".")
    numbers = (n, row)
    if not task or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in numbers):
        raise BadInput("A cursor is TASK.N.ROW, from the first three columns of the last line received.")
    return Cursor(task=task, n=int(n), row=int(row))


class Export:
    """Reads chunks and their accepted results side by side."""

    def __init__(self, stores: Stores, inputs: Inputs | None = None) -> None:
        self._stores = stores
        self._inputs = inputs or Inputs(Blobs(stores))

    def fields(self, tasks: Sequence[Task]) -> list[str]:
        """The names of the input's fields over all the tasks, in their order."""
        names: dict[str, None] = {}
        for task in tasks:
            names.update(dict.fromkeys(task.fields))
        return list(names)

    def chunks(self, tasks: Sequence[Task], after: Cursor | None) -> Iterator[ExportedChunk]:
        """The chunks of the tasks in order, from the chunk of the cursor on. Tasks without whole data are left out."""
        if after is not None and after.task not in {task.id for task in tasks}:
            raise BadInput(f"The cursor's task {after.task} is not among those asked for.")
        return self._from(tasks, after)

    def _from(self, tasks: Sequence[Task], after: Cursor | None) -> Iterator[ExportedChunk]:
        begun = after is None
        for task in tasks:
            start = 0
            if after is not None and task.id == after.task:
                begun, start = True, after.n
            if begun and task.upload is not None and task.upload.complete:
                yield from self._of_task(task, start)

    def _of_task(self, task: Task, start: int) -> Iterator[ExportedChunk]:
        assert task.upload is not None
        begin, page = start, SMALLEST_PAGE
        while begin < task.upload.chunks:
            ids = [f"{task.id}.{n}" for n in range(begin, min(begin + page, task.upload.chunks))]
            chunks = self._stores.chunks.read(ids, with_input=True, majority=True)
            results = self._stores.results.full([one.result for one in chunks.values() if one.result])
            pseudonyms = self._stores.accounts.pseudonyms({result["account"] for result in results.values()})
            for chunk in (chunks[chunk_id] for chunk_id in ids if chunk_id in chunks):
                # A large input is read when its turn has come, and no two of them at once.
                text = self._inputs.read(chunk)
                yield _exported(chunk, text, results.get(chunk.result or ""), pseudonyms)
            begin += page
            page = _next_page(page, chunks.values(), results.values())


def _next_page(page: int, chunks: Iterable[Chunk], results: Iterable[Mapping[str, Any]]) -> int:
    size = sum(len(chunk.input or "") for chunk in chunks) + sum(len(result["answer"]) for result in results)
    if size > PAGE_BYTES:
        return max(SMALLEST_PAGE, page // 4)
    return min(LARGEST_PAGE, page * 2) if size * 2 <= PAGE_BYTES else page


def _exported(
    chunk: Chunk, text: str, result: Mapping[str, Any] | None, pseudonyms: Mapping[str, str]
) -> ExportedChunk:
    return ExportedChunk(
        task=chunk.task,
        n=chunk.n,
        first_row=chunk.first_row if chunk.rows is not None else chunk.n,
        rows=rows_of(text, chunk.rows),
        answers=None if result is None else _answers(result["answer"], chunk.rows),
        state=chunk.state.value,
        provenance=Provenance() if result is None else _provenance(chunk, result, pseudonyms),
    )


def _answers(answer: str, rows: int | None) -> list[str]:
    whole = answer[:-1] if answer.endswith("\n") else answer
    return [whole] if rows is None else whole.split("\n")


def _provenance(chunk: Chunk, result: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> Provenance:
    return Provenance(
        # The chunk points at this result, and so a majority has it: that is what "accepted" means, even in the
        # moment before the verdict is written down.
        verdict="suspect" if result.get("suspect") else "accepted",
        account=pseudonyms.get(result["account"]),
        host=result["host"],
        container=result["container"],
        runtime=result["runtime"],
        self_test=result.get("self_test"),
        image=result["image"],
        variant=result.get("variant") or None,
        files=result.get("files", ()),
        run=result["run"],
        attempt=chunk.failures + 1,
        started=result["started"],
        ended=result["ended"],
        exit_code=result["exit"],
    )
