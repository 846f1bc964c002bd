"""What is explored of a task's end: who takes part, how often rare things happen, and what is broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What is done otherwise than the product does it. Each of these has to be found."""

    decides_blindly: bool = False  #: the outcome is written whatever the task has become
    forgets_limits: bool = False  #: or though its limits have had a word since it was read
    marks_later: bool = False  #: that reactions are due is a write of its own, behind the decision
    waits_for_nobody: bool = False  #: `after` is made while the one before it runs
    names_by_chance: bool = False  #: a companion's id is not made of task, reaction and rounds
    task_first: bool = False  #: a companion's task is written before its chunk
    ends_any_round: bool = False  #: that all have ended is written whatever round the task is in
    reacts_locally: bool = False  #: what follows is read from the primary alone
    tends_locally: bool = False  #: likewise whether a companion is outdated
    sweeps_locally: bool = False  #: likewise whether chunks are to be cancelled, and are
    keeps_outdated: bool = False  #: nobody ends the companions that nobody waits for


@dataclass(frozen=True, kw_only=True)
class Reacting:
    """One small configuration, explored wholly: a task of one chunk, with a job for each reaction."""

    name: str
    at_work: int = 2  #: processes under way at once: housekeepers and requests
    reactions_fail: bool = False  #: a reaction's chunk may be set aside
    outdated_are_left: bool = False  #: nobody computes a reaction that nobody waits for
    late: int = 0  #: good answers that come after the chunk was set aside
    reruns: int = 0
    cancels: int = 0
    limits: int = 0
    failovers: int = 0  #: with none, a majority has every write at once
    wrong: Wrong = Wrong()
