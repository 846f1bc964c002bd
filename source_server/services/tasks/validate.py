"""A project's own validator: a command that says which answers of a chunk are the same.

It runs like any job, as a chunk of a companion task that goes only to containers the operator labelled trusted. The
companion of TASK is TASK-v; its chunk has the number of the chunk whose answers it compares, and is sent round again
(a rerun) whenever there are more answers to compare.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.blob import DEFAULT_OUTPUT_MB
from source_server.domain.chunk import Chunk, ChunkFile, ChunkState
from source_server.domain.inputs import literals
from source_server.domain.task import Task, Upload
from source_server.services.tasks.question import KEPT_FREE, Answer, Given, Question, front, question
from source_server.stores.chunks import new_rev
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

log = logging.getLogger(__name__)

Groups = Sequence[int | str | None]

UPLOAD = "validator"  #: a companion's chunks come from no upload, and carry this in its place


def companion_id(task: str) -> str:
    """The id of the task whose chunks compare this task's answers."""
    return f"{task}-v"


def companion(task: Task, now: datetime) -> Task:
    """The task that runs a new task's validator; it has no data of its own, waits until there is something to
    compare, and ends with the other."""
    assert task.validator is not None
    return Task(
        id=companion_id(task.id),
        project=task.project,
        owner=task.owner,
        name=f"validator of {task.name}",
        job=task.validator,
        created=now,
        sealed=True,
        examined=True,
        priority=task.priority,
        validates=task.id,
        large_inputs=task.validation.with_files,  # its chunks have files
        upload=Upload(id=UPLOAD, attempt=UPLOAD, complete=True),
    )


def read_groups(answer: str, count: int) -> Groups | None:
    """A validator's answer: a JSON list with a group (number, text, or null: worthless) for each of `count` answers."""
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, list) or len(said) != count:
        return None
    sound = all(one is None or (isinstance(one, int | str) and not isinstance(one, bool)) for one in said)
    return said if sound else None


def asked_about(chunk: Chunk) -> int:
    """How many answers a companion's chunk (read with its input) compares."""
    return front(chunk).count


class Validate:
    """Asks the validator, and reads what it said."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def groups(self, task: Task, chunk: Chunk) -> Groups | None:
        """What a majority knows of the validator's word on all of the chunk's candidates; None: not said yet."""
        asked = self._find(task, chunk, majority=True)
        if asked is None or asked.state is not ChunkState.DONE or asked.result is None:
            return None
        if not _is_about(asked, chunk):
            return None
        answer = self._stores.results.answers([asked.result]).get(asked.result)
        said = None if answer is None else read_groups(answer, len(chunk.candidates))
        # Whatever it says of an answer that it was not shown: that one is worth nothing.
        unseen = front(asked).left_out
        return None if said is None else [None if n in unseen else one for n, one in enumerate(said)]

    def is_given_up(self, task: Task, chunk: Chunk) -> bool:
        """Whether a majority has it that the comparing of just these candidates was set aside: it failed too often."""
        asked = self._find(task, chunk, majority=True)
        return asked is not None and asked.state is ChunkState.QUARANTINED and _is_about(asked, chunk)

    def request(self, known: Task, chunk: Chunk) -> None:
        """Have the candidates compared, unless that is under way or done."""
        asked = self._find(known, chunk, majority=False)
        if asked is not None and _is_about(asked, chunk):
            return
        task = self._stores.tasks.find(known.id)  # with all that its jobs say
        if task is None:
            return
        # First: nobody would be given a chunk of a task that waits, or is not there: its maker may have died.
        self._stores.tasks.ensure(companion(task, task.created))
        self._stores.tasks.start(companion_id(task.id), self._stores.clock.now())
        new = self._question(task, chunk)
        try:
            if asked is None:
                run = self._stores.removals.first_run(task.id)
                self._stores.chunks.add([_new(task, chunk, new, run)])
            else:
                again = replace(rules.rerun(asked, 1), input=new.text, files=new.files)
                self._stores.chunks.apply([(asked, again)])
        except AlreadyThere:
            pass  # another process asks at this moment
        except rules.WrongState as error:
            log.warning("answers cannot be compared", extra={"chunk": chunk.id, "reason": str(error)})

    def _find(self, task: Task, chunk: Chunk, *, majority: bool) -> Chunk | None:
        wanted = f"{companion_id(task.id)}.{chunk.n}"
        return self._stores.chunks.read([wanted], with_input=True, majority=majority).get(wanted)

    def _question(self, task: Task, chunk: Chunk) -> Question:
        whole, ids = self._stores.chunks.find(chunk.id), [one.result for one in chunk.candidates]
        texts, files = self._stores.results.answers(ids), self._stores.results.files(ids)
        answers = [
            Answer(text=texts.get(one), files=tuple(ChunkFile(**file) for file in files.get(one, ())))
            for one in ids
        ]
        given = Given() if whole is None else self._given(task, whole)
        return question(chunk.run, given, answers, room=_room(task))

    def _given(self, task: Task, chunk: Chunk) -> Given:
        named = literals(task.job.inputs)
        sizes = self._stores.blobs.owned(task.owner, {sha256 for sha256, _ in named}) if named else {}
        of_task = [
            ChunkFile(name=name, sha256=sha256, bytes=sizes[sha256])
            for sha256, name in named
            if sha256 in sizes
        ]
        return Given(text=chunk.input, file=chunk.input_file, files=(*of_task, *chunk.files))


def _room(task: Task) -> int | None:
    """Bytes of files that the validator may get; None: it is only told of them."""
    if task.validator is None or not task.validation.with_files:
        return None
    return max(0, (task.validator.disk_mb or DEFAULT_OUTPUT_MB) * 1024 * 1024 - KEPT_FREE)


def _is_about(asked: Chunk, chunk: Chunk) -> bool:
    about = front(asked)
    return (about.run, about.count) == (chunk.run, len(chunk.candidates))


def _new(task: Task, chunk: Chunk, new: Question, run: int) -> Chunk:
    return Chunk(
        id=f"{companion_id(task.id)}.{chunk.n}",
        project=task.project,
        task=companion_id(task.id),
        n=chunk.n,
        r=random.random(),
        rev=new_rev(),
        upload=UPLOAD,
        run=run,
        input=new.text,
        files=new.files,
    )
