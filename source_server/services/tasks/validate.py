"""A project's own validator: a command that says which answers of a chunk are the same.

It runs like any job, as a chunk of a companion task that goes only to containers the operator labelled trusted. The
companion of TASK is TASK-v; its chunk has the number of the chunk whose answers it compares, and is sent round again
(a rerun) whenever there are more answers to compare.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from source_server.domain import transitions as rules
from source_server.domain.chunk import Chunk, ChunkState
from source_server.domain.task import Task, Upload
from source_server.stores.chunks import new_rev
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

log = logging.getLogger(__name__)

Groups = Sequence[int | str | None]

UPLOAD = "validator"  #: a companion's chunks come from no upload, and carry this in its place
MOST_SHOWN = 8 * 1024 * 1024  #: bytes of all answers in a question, as JSON; a document holds twice that

# What has to be known of a question stands in front: the rest may be megabytes, and deeper than a parser bears.
_FRONT = re.compile(r'\{"run": (\d+), "count": (\d+), "left_out": \[([\d, ]*)\], ')


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


@dataclass(frozen=True, kw_only=True)
class _Front:
    """What a question is about: a run's first `count` answers, without those whose places are in `left_out`."""

    run: int = -1
    count: int = 0
    left_out: frozenset[int] = frozenset()


def question(run: int, input_: str | None, answers: Sequence[str | None]) -> str:
    """What a validator gets on stdin. `input_` is JSON text; an answer that is too large to be shown is null."""
    fair = MOST_SHOWN // max(1, len(answers))
    shown = [text if len(text) <= fair else "null" for text in map(json.dumps, answers)]
    left_out = [place for place, text in enumerate(shown) if text == "null"]
    front = f'{{"run": {run}, "count": {len(answers)}, "left_out": {left_out}, '
    return f'{front}"input": {input_ or "null"}, "answers": [{", ".join(shown)}]}}'


def asked_about(chunk: Chunk) -> int:
    """How many answers a companion's chunk (read with its input) compares."""
    return _front(chunk).count


def _front(asked: Chunk) -> _Front:
    found = _FRONT.match(asked.input or "")
    if found is None:
        return _Front()
    left_out = frozenset(int(place) for place in found[3].split(", ") if place)
    return _Front(run=int(found[1]), count=int(found[2]), left_out=left_out)


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
        unseen = _front(asked).left_out
        return None if said is None else [None if n in unseen else one for n, one in enumerate(said)]

    def request(self, task: Task, chunk: Chunk) -> None:
        """Have the candidates compared, unless that is under way or done."""
        asked = self._find(task, chunk, majority=False)
        if asked is not None and _is_about(asked, chunk):
            return
        # First: nobody would be given a chunk of a task that waits, or is not there: its maker may have died.
        self._stores.tasks.ensure(companion(task, task.created))
        self._stores.tasks.start(companion_id(task.id), self._stores.clock.now())
        text = self._question(chunk)
        try:
            if asked is None:
                run = self._stores.removals.first_run(task.id)
                self._stores.chunks.add([_new(task, chunk, text, run)])
            else:
                self._stores.chunks.apply([(asked, replace(rules.rerun(asked, 1), input=text))])
        except AlreadyThere:
            pass  # another process asks at this moment
        except rules.WrongState as error:
            log.warning("answers cannot be compared", extra={"chunk": chunk.id, "reason": str(error)})

    def _find(self, task: Task, chunk: Chunk, *, majority: bool) -> Chunk | None:
        wanted = f"{companion_id(task.id)}.{chunk.n}"
        return self._stores.chunks.read([wanted], with_input=True, majority=majority).get(wanted)

    def _question(self, chunk: Chunk) -> str:
        whole = self._stores.chunks.find(chunk.id)
        answers = self._stores.results.answers([one.result for one in chunk.candidates])
        shown = [answers.get(one.result) for one in chunk.candidates]
        return question(chunk.run, whole.input if whole else None, shown)


def _is_about(asked: Chunk, chunk: Chunk) -> bool:
    front = _front(asked)
    return (front.run, front.count) == (chunk.run, len(chunk.candidates))


def _new(task: Task, chunk: Chunk, text: str, run: int) -> Chunk:
    return Chunk(
        id=f"{companion_id(task.id)}.{chunk.n}",
        project=task.project,
        task=companion_id(task.id),
        n=chunk.n,
        r=random.random(),
        rev=new_rev(),
        upload=UPLOAD,
        run=run,
        input=text,
    )
