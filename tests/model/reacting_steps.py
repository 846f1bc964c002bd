"""What may happen next to a task that ends: one database operation of somebody, an answer, a person's wish, a failover.

The guards are those of the stores of tasks, reactions, rounds and limits; what is to be done follows from the product's
rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from model import reacting_rules as rules
from model.reacting_setting import Reacting, Wrong
from model.reacting_state import (
    ASIDE,
    CANCELLED,
    DONE,
    OPEN,
    TASK,
    ChunkDocument,
    Process,
    State,
    TaskDocument,
    chunk_of,
    companion_of,
    document_of,
    with_chunk,
    with_process,
    without_process,
)
from model.reacting_writes import WRITES

Step = tuple[str, State]


def steps(setting: Reacting, state: State) -> Iterator[Step]:
    """Every step from here."""
    for process in dict.fromkeys(state.processes):
        without = without_process(state, process)
        yield f"who was to {process.step} of {process.about} dies", without
        if not process.wrote:
            yield from _goes_on(setting, state, without, process)
    if len(state.processes) < setting.at_work:
        for begun in dict.fromkeys(_begins(setting.wrong, state)):
            yield f"{begun.about} is read: to {begun.step}", with_process(state, begun)
    yield from _answers(setting, state)
    yield from _wishes(setting, state)


def _goes_on(setting: Reacting, state: State, without: State, process: Process) -> Iterator[Step]:
    if process.step in _READS:
        after = _READS[process.step](setting.wrong, state, process)
        yield f"{process.about}: {process.step}", with_process(without, after)
        return
    written = WRITES[process.step](setting.wrong, state.primary, process)
    wrote = process._replace(wrote="no match" if written is None else "matched")
    said = f"{process.about}: {process.step}, {wrote.wrote}"
    after_write = state.primary if written is None else written
    yield said, with_process(without._replace(primary=after_write), wrote)


def acknowledged(wrong: Wrong, process: Process) -> Process | None:
    """What a process does next whose write is with a majority."""
    following = _AFTER.get((process.step, process.wrote))
    return None if following is None else following(wrong, process._replace(wrote=""))


# --- housekeeping, and requests: what somebody may begin, with the first read


def _begins(wrong: Wrong, state: State) -> Iterator[Process]:
    primary, majority = state.primary, state.majority
    for one in (primary.task, *primary.companions):
        if not one.outcome and not one.sending:
            yield from _ends(wrong, state, one)
    for one in primary.companions:
        if not (one.outcome or one.cancelled or wrong.keeps_outdated):
            yield Process("look at its task", one.id)
    task = primary.task if wrong.reacts_locally else majority.task
    if task.outcome and task.reacting:
        yield Process("look at the reactions", TASK, (task,))
    if majority.task.sending:
        # Whoever goes on with a round has taken it in hand first, by a write that a majority has.
        yield Process("send the chunk out", TASK, (majority.task.rounds, primary.chunk))


def _ends(wrong: Wrong, state: State, one: TaskDocument) -> Iterator[Process]:
    known = state.primary if wrong.sweeps_locally else state.majority
    chunk, sure = chunk_of(known, one.id), document_of(known, one.id)
    is_open = chunk is not None and chunk.state == OPEN
    if sure is not None and is_open and not sure.outcome and (sure.cancelled or sure.ends_as):
        yield Process("cancel the chunk", one.id, (chunk,))
    if one.cancelled and sure is not None and sure.cancelled and not is_open:
        yield Process("decide", one.id, (one, CANCELLED))
    elif one.reaction and not one.cancelled and not is_open:
        # Read in one go: a reaction's chunk that is settled stays so.
        said = rules.outcome(one, DONE if chunk is None else chunk.state)
        yield Process("decide", one.id, (one, said))
    elif not one.reaction and not one.cancelled:
        yield Process("look for an open chunk", one.id, (one,))


# --- reads


def _look(wrong: Wrong, state: State, process: Process) -> Process | None:
    chunk = chunk_of(state.majority, process.about)
    is_open = chunk is not None and chunk.state == OPEN
    return None if is_open else process._replace(step="count what is set aside")


def _count(wrong: Wrong, state: State, process: Process) -> Process | None:
    [document] = process.read
    assert isinstance(document, TaskDocument)
    chunk = chunk_of(state.majority, process.about)
    said = rules.outcome(document, DONE if chunk is None else chunk.state)
    return process._replace(step="decide", read=(document, said))


def _reactions(wrong: Wrong, state: State, process: Process) -> Process | None:
    [task] = process.read
    assert isinstance(task, TaskDocument)
    database = state.primary if wrong.reacts_locally else state.majority
    ended = rules.ended_of(task, database, named=not wrong.names_by_chance)
    if wrong.waits_for_nobody:
        ended = tuple((name, True) for name, _ in ended)
    step = rules.next_of(task, ended)
    if step == "wait":
        return None
    if step == "end":
        return process._replace(step="end the reactions", read=(task.rounds,))
    made = rules.new_companion(task, step.removeprefix("make "))
    if wrong.names_by_chance:
        made = made._replace(id=_by_chance(state, made.id))
    return process._replace(step="make the task" if wrong.task_first else "make the chunk", read=(made,))


def _by_chance(state: State, id_: str) -> str:
    """A name that nobody else chooses."""
    taken = {one.id for one in state.primary.companions}
    taken |= {str(one.read[0]) for one in state.processes if one.read}
    number = 1
    while any(f"{id_}~{number}" in name for name in taken):
        number += 1
    return f"{id_}~{number}"


def _still_wanted(wrong: Wrong, state: State, process: Process) -> Process | None:
    [made] = process.read
    assert isinstance(made, TaskDocument)
    return None if rules.outdated(made, state.primary.task) else process._replace(step="make the task")


def _parent(wrong: Wrong, state: State, process: Process) -> Process | None:
    one = companion_of(state.primary, process.about)
    parent = (state.primary if wrong.tends_locally else state.majority).task
    if one is None or not rules.outdated(one, parent):
        return None
    return process._replace(step="close its gate")


_READS: dict[str, Callable[[Wrong, State, Process], Process | None]] = {
    "look for an open chunk": _look,
    "count what is set aside": _count,
    "look at the reactions": _reactions,
    "look whether it is still wanted": _still_wanted,
    "look at its task": _parent,
}


# --- what follows a write


def _made_first(wrong: Wrong, process: Process) -> Process | None:
    return None if wrong.task_first else process._replace(step="look whether it is still wanted")


def _made_last(wrong: Wrong, process: Process) -> Process | None:
    return process._replace(step="make the chunk") if wrong.task_first else None


def _decided(wrong: Wrong, process: Process) -> Process | None:
    is_due = process.about == TASK and wrong.marks_later
    return Process("say that reactions are due") if is_due else None


def _sent(wrong: Wrong, process: Process) -> Process | None:
    return process._replace(step="end the round", read=process.read[:1])


#: What follows; everything else is the end of what somebody was at.
_AFTER: dict[tuple[str, str], Callable[[Wrong, Process], Process | None]] = {
    ("decide", "matched"): _decided,
    ("make the chunk", "matched"): _made_first,
    ("make the chunk", "no match"): _made_first,
    ("make the task", "matched"): _made_last,
    ("make the task", "no match"): _made_last,
    ("close its gate", "no match"): lambda wrong, process: (
        process._replace(step="cancel the reactions") if process.about == TASK else None
    ),
    ("send the chunk out", "matched"): _sent,
    ("send the chunk out", "no match"): _sent,
}


# --- volunteers, and people


def _answers(setting: Reacting, state: State) -> Iterator[Step]:
    primary = state.primary
    for task in (primary.task, *primary.companions):
        chunk = chunk_of(primary, task.id)
        if chunk is None or chunk.state in (DONE, CANCELLED) or _is_left(setting, state, task):
            continue
        if chunk.state == OPEN:
            yield f"the chunk of {task.id} is answered", _settled(state, chunk, DONE)
            if not task.reaction or setting.reactions_fail:
                yield f"the chunk of {task.id} is set aside", _settled(state, chunk, ASIDE)
        elif not task.reaction and state.spent.late < setting.late:
            spent = state.spent._replace(late=state.spent.late + 1)
            yield "a good answer comes late", _settled(state, chunk, DONE)._replace(spent=spent)


def _is_left(setting: Reacting, state: State, task: TaskDocument) -> bool:
    """Whether nobody computes it any more."""
    outdated = bool(task.reaction) and rules.outdated(task, state.primary.task)
    return outdated and setting.outdated_are_left


def _settled(state: State, chunk: ChunkDocument, settled: str) -> State:
    return state._replace(primary=with_chunk(state.primary, chunk._replace(state=settled)))


def _wishes(setting: Reacting, state: State) -> Iterator[Step]:
    spent = state.spent
    if spent.cancels < setting.cancels:
        asked = state._replace(spent=spent._replace(cancels=spent.cancels + 1))
        yield "a person asks to cancel", with_process(asked, Process("close its gate"))
    if spent.reruns < setting.reruns:
        asked = state._replace(spent=spent._replace(reruns=spent.reruns + 1))
        yield "a person asks for a rerun", with_process(asked, Process("begin a round"))
    if spent.limits < setting.limits:
        asked = state._replace(spent=spent._replace(limits=spent.limits + 1))
        yield "its limits are used up", with_process(asked, Process("end it early"))
