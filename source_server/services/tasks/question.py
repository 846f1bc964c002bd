"""What a validator is asked: a chunk's input and its answers as JSON, and the files that go with them.

Files are told of by name, hash and size. Where the validator wants them, those of the input lie in its /in below
`input`, named as the program saw them, and those of the nth answer (from 0) below `answers/n`, named as they came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from source_server.domain.blob import MOST_FILES
from source_server.domain.chunk import Chunk, ChunkFile
from source_server.domain.file_names import BadName, checked_name

MOST_SHOWN = 8 * 1024 * 1024  #: bytes of all answers in a question, as JSON; a document holds twice that
#: Bytes of the validator's disk that no file takes: for the question, and what it writes.
KEPT_FREE = 2 * MOST_SHOWN
MOST_TOLD = MOST_SHOWN // 4  #: bytes of the list of the input's files, as JSON

# What has to be known of a question stands in front: the rest may be megabytes, and deeper than a parser bears.
_FRONT = re.compile(r'\{"run": (\d+), "count": (\d+), "left_out": \[([\d, ]*)\], ')

Placed = Mapping[str, ChunkFile]  #: path below /in -> the file


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the program was given."""

    text: str | None = None  #: JSON; None where it is a file
    file: ChunkFile | None = None  #: that one
    files: tuple[ChunkFile, ...] = ()  #: what lay beside it in /in


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one attempt answered."""

    text: str | None  #: None: it is not here any more
    files: tuple[ChunkFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """A validator's input, and the files for its /in."""

    text: str
    files: tuple[ChunkFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Front:
    """What a question is about: a run's first `count` answers, without those whose places are in `left_out`."""

    run: int = -1
    count: int = 0
    left_out: frozenset[int] = frozenset()


def front(asked: Chunk) -> Front:
    """What the question of a companion's chunk (read with its input) is about."""
    found = _FRONT.match(asked.input or "")
    if found is None:
        return Front()
    left_out = frozenset(int(place) for place in found[3].split(", ") if place)
    return Front(run=int(found[1]), count=int(found[2]), left_out=left_out)


def question(run: int, given: Given, answers: Sequence[Answer], *, room: int | None = None) -> Question:
    """What to ask. `room`: bytes of files that the validator may get; None: it is only told of them.

    An answer that is too large to be shown, or whose files would take more than its equal part of the room, is null.
    """
    count = max(1, len(answers))
    laid = _of_input(given, room)
    told, file_told = _told_of_input(given, laid)
    left = 0 if room is None else room - _bytes(laid)
    fair, fair_files = (MOST_SHOWN - len(told)) // count, (MOST_FILES - len(laid)) // count
    texts, lists, files = [], [], dict(laid)
    for place, one in enumerate(answers):
        theirs = {} if room is None else _below(f"answers/{place}", one.files)
        text, listed = json.dumps(one.text), _listed(one.files, theirs)
        fits = _bytes(theirs) <= left // count and len(theirs) <= fair_files
        if one.text is None or not fits or len(text) + len(listed) > fair:
            text, listed, theirs = "null", "null", {}
        texts.append(text)
        lists.append(listed)
        files |= theirs
    left_out = [place for place, text in enumerate(texts) if text == "null"]
    said = (
        f'{{"run": {run}, "count": {len(answers)}, "left_out": {left_out}, '
        f'"input": {given.text or "null"}, "answers": [{", ".join(texts)}], '
        f'"input_file": {file_told}, "files": {told}, "answer_files": [{", ".join(lists)}]}}'
    )
    return Question(text=said, files=tuple(replace(file, name=path) for path, file in files.items()))


def _of_input(given: Given, room: int | None) -> Placed:
    """The input's files in /in: all of them, or none where they would take more than half of what there is."""
    if room is None:
        return {}
    inputs = (*given.files, *(() if given.file is None else (given.file,)))
    placed = _below("input", inputs)
    return placed if _bytes(placed) <= room // 2 and len(placed) <= MOST_FILES // 2 else {}


def _told_of_input(given: Given, laid: Placed) -> tuple[str, str]:
    """(the list of its files, the file that it is itself), as JSON."""
    told = _listed(given.files, laid)
    alone = None if given.file is None else json.loads(_listed([given.file], laid))[0]
    if alone is not None:
        del alone["name"]
    return told if len(told) <= MOST_TOLD else "null", json.dumps(alone)


def _below(folder: str, files: Sequence[ChunkFile]) -> Placed:
    """Where these lie: under their names, or, where one would be too long or too deep there, all under their hashes."""
    named = {f"{folder}/{one.name}": one for one in files}
    try:
        for path in named:
            checked_name(path)
    except BadName:
        return {f"{folder}/{one.sha256}": one for one in files}
    return named


def _listed(files: Sequence[ChunkFile], placed: Placed) -> str:
    paths = {one.name: path for path, one in placed.items()}
    by_hash = {one.sha256: path for path, one in placed.items()}
    told: list[dict[str, Any]] = []
    for one in files:
        entry: dict[str, Any] = {"name": one.name, "sha256": one.sha256, "bytes": one.bytes}
        path = paths.get(one.name) or by_hash.get(one.sha256)
        told.append(entry if path is None else {**entry, "path": path})
    return json.dumps(told)


def _bytes(placed: Placed) -> int:
    return sum(one.bytes for one in placed.values())
