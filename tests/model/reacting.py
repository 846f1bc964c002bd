"""The model of a task's end: the outcome, its reactions one after the other, and what may disturb them.

Somebody at work may die between any two operations. Answers, and what people want, come at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator

from model import reacting_rules as rules
from model.reacting_setting import Reacting
from model.reacting_state import (
    CANCELLED,
    OPEN,
    TASK,
    Database,
    Process,
    State,
    TaskDocument,
    chunk_of,
    with_process,
)
from model.reacting_steps import acknowledged, steps

TWO_OUTCOMES = "one decision has had two outcomes"
BOTH = "success and failure react to one decision"
NOT_DUE = "a reaction runs that the outcome does not call for"
EARLY = "after was made before the other had ended"
TWICE = "a reaction to one decision was made twice"
LEFT_OUT = "reactions are said to have ended, and one has not"
UNASKED = "a reaction was cancelled that was waited for"
OPEN_LEFT = "a task is complete, and its chunk is open"
NOT_RUN = "a reaction has ended that never ran"
CHUNK_LOST = "a chunk was cancelled of a task that was to run on"
OTHER_WORD = "the outcome is not what the cancelling, or the limits, said"


class Ending:
    """A model for the explorer."""

    def __init__(self, setting: Reacting) -> None:
        self._setting = setting
        self.initial = State()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Every step from here."""
        for label, after in steps(self._setting, state):
            if not self._setting.failovers:
                after = self._replicated(after)
            if after != state:
                yield label, self._without_the_late(after)
        if self._setting.failovers:
            yield from self._replication(state)

    def _replication(self, state: State) -> Iterator[tuple[str, State]]:
        if state.primary == state.majority and not any(one.wrote for one in state.processes):
            return
        yield "a majority has all that the primary has", self._replicated(state)
        if state.spent.failovers < self._setting.failovers:
            yield "FAILOVER: what no majority has is gone", _failed_over(state)

    def _replicated(self, state: State) -> State:
        waiting = [one for one in state.processes if one.wrote]
        after = state._replace(
            majority=state.primary, processes=tuple(one for one in state.processes if not one.wrote)
        )
        for one in waiting:
            after = with_process(after, acknowledged(self._setting.wrong, one))
        return _with_decision(after)

    def _without_the_late(self, state: State) -> State:
        """The same state without those whose write can match nothing any more: as if they had died."""
        wrong, rounds = self._setting.wrong, state.majority.task.rounds
        if not rounds or wrong.decides_blindly or wrong.ends_any_round:
            return state
        kept = tuple(one for one in state.processes if one.wrote or not _is_late(one, rounds))
        return state if len(kept) == len(state.processes) else state._replace(processes=kept)

    def wrongs(self, state: State) -> Iterator[str]:
        """A sentence for each property that does not hold."""
        if state.broken:
            yield state.broken
        yield from _wrong_companions(state)
        yield from _wrong_task(state.primary)
        for one in state.majority.companions:
            chunk = chunk_of(state.majority, one.id)
            if one.outcome not in ("", CANCELLED) and (chunk is None or chunk.state in (OPEN, CANCELLED)):
                yield NOT_RUN
        if state.majority.task.outcome and state.majority.chunk.state == OPEN:
            yield OPEN_LEFT

    def is_at_rest(self, state: State) -> bool:
        """Whether the task and all its companions are complete, nobody is at work, and nothing more is due."""
        task = state.primary.task
        if state.processes or state.primary != state.majority or not task.outcome:
            return False
        return not (task.reacting or task.sending) and all(one.outcome for one in state.primary.companions)


def _is_late(process: Process, rounds: int) -> bool:
    """Whether its write names a number of rounds that a majority has left behind."""
    if process.about != TASK:
        return False
    if process.step in ("look for an open chunk", "count what is set aside", "decide"):
        seen = process.read[0]
        return isinstance(seen, TaskDocument) and seen.rounds < rounds
    numbered = process.step in ("end the reactions", "send the chunk out", "end the round")
    return numbered and process.read[0] < rounds  # type: ignore[operator]


def _failed_over(state: State) -> State:
    # The driver says a write again to the new primary; who gives up at that moment has died in another state.
    again = sorted(one._replace(wrote="") for one in state.processes)
    spent = state.spent._replace(failovers=state.spent.failovers + 1)
    return state._replace(primary=state.majority, processes=tuple(again), spent=spent)


def _with_decision(state: State) -> State:
    """What a majority has now was decided, if nothing was before."""
    task = state.majority.task
    known = [*state.decided, *[""] * (task.rounds + 1 - len(state.decided))]
    if not task.outcome or known[task.rounds] == task.outcome:
        return state
    if known[task.rounds]:
        return state._replace(broken=TWO_OUTCOMES)
    known[task.rounds] = task.outcome
    return state._replace(decided=tuple(known))


def _wrong_companions(state: State) -> Iterator[str]:
    for rounds, outcome in enumerate(state.decided):
        made = [one for one in state.primary.companions if one.of_rounds == rounds]
        names = [one.reaction for one in made]
        if len(set(names)) < len(names):
            yield TWICE
        if {"success", "failure"} <= set(names):
            yield BOTH
        if not outcome or not set(names) <= set(rules.due_of(outcome)):
            if names:
                yield NOT_DUE
            continue
        over = {one.reaction for one in made if one.outcome}
        if "after" in names and not set(rules.due_of(outcome)) - {"after"} <= over:
            yield EARLY
    for one in state.primary.companions:
        if one.cancelled and not rules.outdated(one, state.primary.task):
            yield UNASKED


def _wrong_task(database: Database) -> Iterator[str]:
    task = database.task
    if task.outcome and not task.reacting and not task.dropped and not _have_ended(database, task):
        yield LEFT_OUT
    wanted = CANCELLED if task.cancelled else task.ends_as
    if task.outcome and wanted and task.outcome != wanted:
        yield OTHER_WORD
    if database.chunk.state == CANCELLED and not wanted:
        yield CHUNK_LOST


def _have_ended(database: Database, task: TaskDocument) -> bool:
    over = {one.reaction for one in database.companions if one.of_rounds == task.rounds and one.outcome}
    return set(rules.due_of(task.outcome)) <= over
