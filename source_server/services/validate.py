"""A project's own validator: a command that says which answers of a chunk are the same.

It runs like any job, as a chunk of a companion task that goes only to containers the operator labelled trusted. The
companion of TASK is TASK-v; its chunk has the number of the chunk whose answers it compares, and is sent round again
(a rerun) whenever there are more answers to compare.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.task import Task, TaskState, Upload
from source_server.stores.chunks import new_rev
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

Groups = Sequence[int | str | None]

UPLOAD = "validator"  #: a companion's chunks come from no upload, and carry this in its place


def companion_id(task: str) -> str:
    """The id of the task whose chunks compare this task's answers."""
    return f"{task}-v"


def companion(task: Task, now: datetime) -> Task:
    """The task that runs a new task's validator; it has no data of its own and ends with the other."""
    assert task.validator is not None
    return Task(
        id=companion_id(task.id),
        project=task.project,
        owner=task.owner,
        name=f"validator of {task.name}",
        job=task.validator,
        created=now,
        started=now,
        state=TaskState.RUNNING,
        sealed=True,
        examined=True,
        priority=task.priority,
        validates=task.id,
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
    return len(json.loads(chunk.input or "{}").get("answers", ()))


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
        return None if answer is None else read_groups(answer, len(chunk.candidates))

    def request(self, task: Task, chunk: Chunk) -> None:
        """Have the candidates compared, unless that is under way or done."""
        asked = self._find(task, chunk, majority=False)
        if asked is not None and _is_about(asked, chunk):
            return
        text = self._question(chunk)
        if asked is None:
            try:
                self._stores.chunks.add([_new(task, chunk, text)])
            except AlreadyThere:
                return  # another process asks at this moment
        else:
            self._stores.chunks.apply([(asked, replace(rules.rerun(asked, 1), input=text))])

    def _find(self, task: Task, chunk: Chunk, *, majority: bool) -> Chunk | None:
        wanted = f"{companion_id(task.id)}.{chunk.n}"
        return self._stores.chunks.read([wanted], with_input=True, majority=majority).get(wanted)

    def _question(self, chunk: Chunk) -> str:
        whole = self._stores.chunks.find(chunk.id)
        answers = self._stores.results.answers([one.result for one in chunk.candidates])
        return json.dumps(
            {
                "run": chunk.run,
                "input": json.loads(whole.input or "null") if whole else None,
                "answers": [answers.get(one.result) for one in chunk.candidates],
            }
        )


def _is_about(asked: Chunk, chunk: Chunk) -> bool:
    question = json.loads(asked.input or "{}")
    return question.get("run") == chunk.run and len(question.get("answers", ())) == len(chunk.candidates)


def _new(task: Task, chunk: Chunk, text: str) -> Chunk:
    return Chunk(
        id=f"{companion_id(task.id)}.{chunk.n}",
        project=task.project,
        task=companion_id(task.id),
        n=chunk.n,
        r=random.random(),
        rev=new_rev(),
        upload=UPLOAD,
        input=text,
    )
