"""The writes of a task's end: each names what it expects, as the stores' guards do; None where that was not so."""

from __future__ import annotations

from collections.abc import Callable

from model import reacting_rules as rules
from model.reacting_setting import Wrong
from model.reacting_state import (
    CANCELLED,
    OPEN,
    ChunkDocument,
    Database,
    Process,
    TaskDocument,
    chunk_of,
    companion_of,
    document_of,
    with_chunk,
    with_task,
)


def _decide(wrong: Wrong, database: Database, process: Process) -> Database | None:
    seen, said = process.read
    assert isinstance(seen, TaskDocument) and isinstance(said, str)
    task = document_of(database, process.about)
    if task is None:
        return None
    is_same = task.rounds == seen.rounds and not task.sending
    is_same = is_same and (task.ends_as == seen.ends_as or wrong.forgets_limits)
    is_same = is_same and not task.outcome and task.cancelled == (said == CANCELLED)
    if not is_same and not wrong.decides_blindly:
        return None
    is_due = not task.reaction and bool(rules.due_of(said)) and not wrong.marks_later
    return with_task(database, task._replace(outcome=said, reacting=is_due))


def _mark(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = database.task
    return with_task(database, task._replace(reacting=True)) if task.outcome else None


def _end_reactions(wrong: Wrong, database: Database, process: Process) -> Database | None:
    [rounds] = process.read
    task = database.task
    if not (task.outcome and task.reacting and (task.rounds == rounds or wrong.ends_any_round)):
        return None
    return with_task(database, task._replace(reacting=False))


def _make_chunk(wrong: Wrong, database: Database, process: Process) -> Database | None:
    [made] = process.read
    assert isinstance(made, TaskDocument)
    there = chunk_of(database, made.id)
    return None if there is not None else with_chunk(database, ChunkDocument(task=made.id))


def _make_task(wrong: Wrong, database: Database, process: Process) -> Database | None:
    [made] = process.read
    assert isinstance(made, TaskDocument)
    return None if companion_of(database, made.id) is not None else with_task(database, made)


def _close_gate(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = document_of(database, process.about)
    return None if task is None or task.outcome else with_task(database, task._replace(cancelled=True))


def _drop_reactions(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = database.task
    if not (task.outcome and task.reacting):
        return None
    return with_task(database, task._replace(reacting=False, dropped=True))


def _cancel_chunk(wrong: Wrong, database: Database, process: Process) -> Database | None:
    [seen] = process.read
    chunk = chunk_of(database, process.about)
    if chunk is None or chunk != seen:
        return None
    return with_chunk(database, chunk._replace(state=CANCELLED))


def _begin_round(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = database.task
    if task.cancelled or task.sending or database.chunk.state == CANCELLED:
        return None
    again = TaskDocument(rounds=task.rounds + 1, sending=True)
    return with_task(database, again)


def _send_out(wrong: Wrong, database: Database, process: Process) -> Database | None:
    rounds, seen = process.read
    assert isinstance(rounds, int)
    chunk = database.chunk
    if chunk != seen or chunk.sent >= rounds or chunk.state == CANCELLED:
        return None
    return with_chunk(database, chunk._replace(state=OPEN, sent=rounds))


def _end_round(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = database.task
    is_sent = database.chunk.sent >= task.rounds or database.chunk.state == CANCELLED or task.cancelled
    if not task.sending or process.read != (task.rounds,) or not is_sent:
        return None
    return with_task(database, task._replace(sending=False))


def _end_early(wrong: Wrong, database: Database, process: Process) -> Database | None:
    task = database.task
    if task.outcome or task.cancelled or task.sending or task.ends_as:
        return None
    return with_task(database, task._replace(ends_as="failed"))


WRITES: dict[str, Callable[[Wrong, Database, Process], Database | None]] = {
    "decide": _decide,
    "say that reactions are due": _mark,
    "end the reactions": _end_reactions,
    "make the chunk": _make_chunk,
    "make the task": _make_task,
    "close its gate": _close_gate,
    "cancel the reactions": _drop_reactions,
    "cancel the chunk": _cancel_chunk,
    "begin a round": _begin_round,
    "send the chunk out": _send_out,
    "end the round": _end_round,
    "end it early": _end_early,
}
