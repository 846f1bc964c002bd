"""One state of the model of a task's end: the database twice (primary, majority), and who is at work.

Ids are the product's: the task is `t`, the companion that runs `success` of its first decision is `t--success-0`.
"""

from __future__ import annotations

from typing import NamedTuple

TASK = "t"

#: What a chunk may be. `open`: somebody computes it, or is to.
OPEN, DONE, ASIDE, CANCELLED = "open", "done", "set aside", "cancelled"


class TaskDocument(NamedTuple):
    """A task as it is stored: the scientist's, or a companion, which has a `reaction` and for ever no rounds."""

    id: str = TASK
    outcome: str = ""  #: empty: it runs
    reacting: bool = False
    rounds: int = 0
    sending: bool = False  #: a round is under way
    cancelled: bool = False
    ends_as: str = ""  #: the word of its limits
    reaction: str = ""
    dropped: bool = False  #: a person has ended the reactions: only the properties look at this
    of_rounds: int = 0  #: of a companion: the rounds of its task before the decision that it reacts to


class ChunkDocument(NamedTuple):
    """The one chunk of a task."""

    task: str = TASK
    state: str = OPEN
    sent: int = 0  #: the last round that sent it out


class Database(NamedTuple):
    """What the documents say."""

    task: TaskDocument = TaskDocument()
    chunk: ChunkDocument = ChunkDocument()
    companions: tuple[TaskDocument, ...] = ()  #: sorted
    chunks: tuple[ChunkDocument, ...] = ()  #: theirs, sorted


class Process(NamedTuple):
    """Somebody at work: the next operation, what it is about, and what was read for it."""

    step: str
    about: str = TASK
    read: tuple[object, ...] = ()
    wrote: str = ""  #: the write is with the primary and waits for a majority; `matched` or `no match`


class Spent(NamedTuple):
    """How often what is rare has happened."""

    reruns: int = 0
    cancels: int = 0
    limits: int = 0
    failovers: int = 0
    late: int = 0


class State(NamedTuple):
    """Everything."""

    primary: Database = Database()
    majority: Database = Database()
    processes: tuple[Process, ...] = ()  #: sorted: one is as good as the other
    decided: tuple[str, ...] = ("",)  #: by rounds: the outcome that a majority had first
    spent: Spent = Spent()
    broken: str = ""  #: a promise that a step broke


def companion_of(database: Database, id_: str) -> TaskDocument | None:
    """The companion with this id."""
    return next((one for one in database.companions if one.id == id_), None)


def document_of(database: Database, id_: str) -> TaskDocument | None:
    """The task, or the companion with this id."""
    return database.task if id_ == TASK else companion_of(database, id_)


def chunk_of(database: Database, task: str) -> ChunkDocument | None:
    """The chunk of a task or companion."""
    return next((one for one in (database.chunk, *database.chunks) if one.task == task), None)


def with_task(database: Database, task: TaskDocument) -> Database:
    """The database with this task or companion in the place of the one with its id, or added."""
    if not task.reaction:
        return database._replace(task=task)
    others = [one for one in database.companions if one.id != task.id]
    return database._replace(companions=tuple(sorted([*others, task])))


def with_chunk(database: Database, chunk: ChunkDocument) -> Database:
    """The same for a chunk."""
    if chunk.task == TASK:
        return database._replace(chunk=chunk)
    others = [one for one in database.chunks if one.task != chunk.task]
    return database._replace(chunks=tuple(sorted([*others, chunk])))


def with_process(state: State, process: Process | None) -> State:
    """The state with one more at work."""
    if process is None:
        return state
    return state._replace(processes=tuple(sorted([*state.processes, process])))


def without_process(state: State, process: Process) -> State:
    """The state with this one gone."""
    rest = list(state.processes)
    rest.remove(process)
    return state._replace(processes=tuple(rest))
