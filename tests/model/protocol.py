"""The model of one setting: what may happen next is what clients, the server and the replica set may do.

Each step is one database operation, or something that a client does. Which change an event makes to a chunk, and which
verdict follows, is asked of the server's own rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from model import properties
from model.client_steps import client_steps
from model.rulebook import Rulebook
from model.server_steps import server_steps
from model.setting import Setting
from model.state import Client, Database, Old, State, canonical, shifted, without_stale_views


class Protocol:
    """A model for the explorer."""

    def __init__(self, setting: Setting) -> None:
        self._rules = Rulebook(setting)
        count = len(setting.givers)
        begin = Database(chunk=0, rev=0, lives=(1,) * count)
        self.initial = State(primary=begin, majority=begin, clients=(Client(),) * count)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Every step from here, each to a state in canonical form."""
        for part in (client_steps, server_steps, _replication):
            for label, after in part(self._rules, state):
                if after is not state:
                    yield label, self._in_form(after)

    def _in_form(self, state: State) -> State:
        variant = self._rules.variant
        if not self._rules.setting.failovers:
            state = _replicated(self._rules, state)
        if not variant.settles_unconfirmed:
            state = without_stale_views(state)
        return shifted(state) if variant.counts_revs else canonical(state)

    def wrongs(self, state: State) -> Iterator[str]:
        """The properties that do not hold here."""
        return properties.wrongs(self._rules, state)

    def is_at_rest(self, state: State) -> bool:
        """Whether nothing is under way, and nothing that is stored waits for anything."""
        return properties.is_at_rest(self._rules, state)


def _replication(rules: Rulebook, state: State) -> Iterator[tuple[str, State]]:
    if state.primary == state.majority:
        return
    yield "a majority has all that the primary has", _replicated(rules, state)
    if state.spent.failovers < rules.setting.failovers:
        yield "FAILOVER: what no majority has is gone", _failed_over(state)


def _replicated(rules: Rulebook, state: State) -> State:
    chunk = rules.chunk(state.primary.chunk)
    if chunk.result is None or any(run == chunk.run for run, _ in state.chosen):
        return state._replace(majority=state.primary)
    chosen = tuple(sorted([*state.chosen, (chunk.run, chunk.result)]))
    return state._replace(majority=state.primary, chosen=chosen)


def _failed_over(state: State) -> State:
    primary, majority = state.primary, state.majority
    old = Old(
        majority_chunk=majority.chunk,
        attempts=tuple(one for one, _ in primary.attempts),
        majority_attempts=tuple(one for one, _ in majority.attempts),
    )
    spent = state.spent._replace(failovers=state.spent.failovers + 1)
    return state._replace(primary=majority, old=old, spent=spent)
