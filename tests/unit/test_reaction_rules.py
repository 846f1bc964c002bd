"""Reactions by their pure rules, and in every interleaving of processes that die anywhere; what depends on what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import NamedTuple

import pytest

from source_server.domain.chunk import Candidate, Chunk, Lease
from source_server.domain.depending import MOST_FOLLOWED, TOGETHER, May, TooManyBefore, circle, standing
from source_server.domain.eligibility import Bar, Crowd, Taker, bar
from source_server.domain.job import Job
from source_server.domain.reactions import (
    Reaction,
    Step,
    companion,
    due,
    is_outdated,
    next_step,
    outcome_of,
    rounds_of,
    rule_for,
)
from source_server.domain.task import Task, TaskOutcome, TaskState
from source_server.domain.validation import Distinct, Validation

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
JOB = Job(action=("/bin/report",))
TASK = Task(
    id="t",
    project="p",
    owner="ada",
    name="t",
    job=JOB,
    created=NOW,
    success=JOB,
    failure=JOB,
    after=JOB,
    state=TaskState.COMPLETE,
    outcome=TaskOutcome.SUCCEEDED,
    reacting=True,
)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (TaskOutcome.SUCCEEDED, (Reaction.SUCCESS, Reaction.AFTER)),
        (TaskOutcome.FAILED, (Reaction.FAILURE, Reaction.AFTER)),
        (TaskOutcome.CANCELLED, (Reaction.AFTER,)),
    ],
)
def test_success_or_failure_is_due_and_then_after_and_after_alone_when_cancelled(
    outcome: TaskOutcome, expected: tuple[Reaction, ...]
) -> None:
    assert due(TASK, outcome) == expected
    assert due(replace(TASK, success=None, failure=None, after=None), outcome) == ()


@pytest.mark.parametrize(("quarantined", "failed"), [(0, False), (2, False), (3, True)])
def test_more_than_max_failed_chunks_set_aside_is_a_failure(quarantined: int, failed: bool) -> None:
    expected = TaskOutcome.FAILED if failed else TaskOutcome.SUCCEEDED

    assert outcome_of(replace(TASK, max_failed=2), quarantined) is expected
    assert outcome_of(replace(TASK, cancelled=True), quarantined) is TaskOutcome.CANCELLED


def test_the_next_reaction_is_made_when_the_one_before_it_has_ended() -> None:
    assert next_step(TASK, {}) is Reaction.SUCCESS
    assert next_step(TASK, {Reaction.SUCCESS: False}) is Step.WAIT
    assert next_step(TASK, {Reaction.SUCCESS: True}) is Reaction.AFTER
    assert next_step(TASK, {Reaction.SUCCESS: True, Reaction.AFTER: False}) is Step.WAIT
    assert next_step(TASK, {Reaction.SUCCESS: True, Reaction.AFTER: True}) is Step.END


def test_a_companion_is_outdated_once_its_task_runs_again_or_reacts_no_more() -> None:
    one = companion(TASK, Reaction.AFTER, Validation(), None, NOW)

    assert rounds_of(one) == 0 and not is_outdated(one, TASK)
    assert is_outdated(one, replace(TASK, rounds=1))
    assert is_outdated(one, replace(TASK, reacting=False))
    assert is_outdated(one, None)


def test_a_rule_that_compares_variants_compares_accounts_in_a_reaction() -> None:
    rule, _ = rule_for(Validation(quorum=2, distinct=Distinct.VARIANT, canaries=0.1), None)

    assert (rule.quorum, rule.distinct, rule.canaries) == (2, Distinct.ACCOUNT, 0.0)


# --- every interleaving: two processes take steps, and may die between any two of them


class World(NamedTuple):
    """What is stored, and what each process has read and is about to write."""

    outcome: str | None  #: decided once in each round
    reacting: bool
    rounds: int
    quarantined: bool
    companions: frozenset[tuple[str, int, bool]]  #: reaction, round, ended
    busy: tuple[tuple[object, ...] | None, ...] = (None, None)
    decisions: tuple[tuple[int, str], ...] = ()  #: every decision that was ever made


START = World(None, False, 0, False, frozenset())
ROUNDS = 1  #: reruns


def steps(world: World, *, decides_blindly: bool = False) -> Iterator[World]:
    """Every state that may come next."""
    if not world.quarantined:
        yield world._replace(quarantined=True)  # a chunk is set aside, or a late answer comes
    else:
        yield world._replace(quarantined=False)
    if world.outcome is not None and world.rounds < ROUNDS:
        yield world._replace(outcome=None, reacting=False, rounds=world.rounds + 1)
    for one in world.companions:
        if not one[2]:
            yield world._replace(companions=world.companions - {one} | {(one[0], one[1], True)})
    for place, doing in enumerate(world.busy):
        if doing is None:
            yield from _read(world, place)
        else:
            yield _busy(world, place, None)  # it dies
            yield _busy(_written(world, doing, decides_blindly=decides_blindly), place, None)


def _read(world: World, place: int) -> Iterator[World]:
    if world.outcome is None:
        said = outcome_of(TASK, int(world.quarantined)).value
        yield _busy(world, place, ("decide", world.rounds, said))
    elif world.reacting:
        task = replace(TASK, outcome=TaskOutcome(world.outcome), rounds=world.rounds)
        ended = {Reaction(name): done for name, round_, done in world.companions if round_ == world.rounds}
        step = next_step(task, ended)
        if step is not Step.WAIT:
            yield _busy(world, place, (step.value, world.rounds))


def _written(world: World, doing: tuple[object, ...], *, decides_blindly: bool) -> World:
    what, rounds = doing[0], doing[1]
    assert isinstance(rounds, int)
    if what == "decide":
        said = str(doing[2])
        # The store's guard: it runs, and no round has begun since the task was read.
        if not decides_blindly and (world.outcome is not None or world.rounds != rounds):
            return world
        decided = (*world.decisions, (rounds, said))
        return world._replace(outcome=said, reacting=True, decisions=decided)
    if what == Step.END.value:
        return world._replace(reacting=False) if world.rounds == rounds and world.reacting else world
    known = {(name, round_) for name, round_, _ in world.companions}
    if (str(what), rounds) in known or world.rounds != rounds or not world.reacting:
        return world  # made already, or outdated
    return world._replace(companions=world.companions | {(str(what), rounds, False)})


def _busy(world: World, place: int, doing: tuple[object, ...] | None) -> World:
    busy = list(world.busy)
    busy[place] = doing
    return world._replace(busy=tuple(busy))


def explored() -> set[World]:
    seen, front = {START}, [START]
    while front:
        world = front.pop()
        for after in steps(world):
            if after not in seen:
                seen.add(after)
                front.append(after)
    return seen


def wrongs(world: World) -> Iterator[str]:
    rounds = [one for one, _ in world.decisions]
    if len(rounds) != len(set(rounds)):
        yield "decided twice in one round"
    for number in range(world.rounds + 1):
        made = {name: ended for name, round_, ended in world.companions if round_ == number}
        if {"success", "failure"} <= made.keys():
            yield "both success and failure"
        if "after" in made and not (made.get("success") or made.get("failure")):
            yield "after before the other has ended"
    current = {name for name, round_, ended in world.companions if round_ == world.rounds and ended}
    if world.outcome is not None and not world.reacting and len(current) < 2:
        yield "ended without both reactions"


def test_in_every_interleaving_the_outcome_is_decided_once_a_round_and_reactions_keep_their_order() -> None:
    states = explored()

    assert len(states) > 500
    assert {wrong for world in states for wrong in wrongs(world)} == set()
    ended = [world for world in states if world.outcome and not world.reacting]
    assert {world.rounds for world in ended} == {0, 1}


def test_a_decision_without_its_guard_is_found_by_the_same_search() -> None:
    found = {wrong for world in _some(explored_blindly()) for wrong in wrongs(world)}

    assert {"decided twice in one round", "both success and failure"} <= found


def explored_blindly() -> Iterator[World]:
    seen, front = {START}, [START]
    while front:
        world = front.pop(0)
        yield world
        for after in steps(world, decides_blindly=True):
            if after not in seen and len(after.decisions) < 3:
                seen.add(after)
                front.append(after)


def _some(worlds: Iterator[World]) -> Iterator[World]:
    for _, world in zip(range(20_000), worlds, strict=False):
        yield world


# --- who may take a reaction


def chunk(**rest: object) -> Chunk:
    made = Chunk(id="t--after-0.0", project="p", task="t--after-0", n=0, r=0.5, rev=1, upload="reaction")
    return replace(made, **rest)  # type: ignore[arg-type]


def taker(name: str, *, preferred: bool = False, account: str | None = None) -> Taker:
    return Taker(container=name, host=f"h-{name}", account=account or f"a-{name}", preferred=preferred)


def test_a_reaction_is_kept_for_a_trusted_container_and_free_for_all_without_one() -> None:
    trusted, other = taker("t", preferred=True), taker("o")

    assert bar(chunk(), other, Validation(), Crowd(takers=(trusted, other))) is Bar.KEPT
    assert bar(chunk(), trusted, Validation(), Crowd(takers=(trusted, other))) is None
    assert bar(chunk(), other, Validation(), Crowd(takers=(other,))) is None


def test_under_a_quorum_it_is_free_for_others_once_no_trusted_one_can_give_another_answer() -> None:
    trusted, other, rule = taker("t", preferred=True), taker("o"), Validation(quorum=2, replicas=2, most=6)
    crowd = Crowd(takers=(trusted, other))
    answered = Candidate(result="r", account="a-t", host="h-t", container="t", digest="d")
    held = Lease(token="x", container="t", life="l", host="h-t", account="a-t", since=NOW, until=NOW)

    assert bar(chunk(), other, rule, crowd) is Bar.KEPT
    assert bar(chunk(candidates=(answered,)), other, rule, crowd) is None
    assert bar(chunk(leases=(held,)), other, rule, crowd) is None


# --- tasks that come after others


def test_a_task_starts_when_all_have_succeeded_and_never_when_one_has_not() -> None:
    task = replace(TASK, id="c", after_tasks=("a", "b"))
    good, bad = replace(TASK, id="a"), replace(TASK, id="b", outcome=TaskOutcome.FAILED)

    assert standing(task, {"a": good, "b": replace(good, id="b")}).may is May.START
    assert standing(task, {"a": good}).may is May.WAIT
    assert (
        standing(task, {"a": replace(good, state=TaskState.RUNNING, outcome=None), "b": bad}).may is May.NEVER
    )
    assert standing(task, {"a": good, "b": replace(bad, owner="eve")}).may is May.WAIT
    assert standing(task, {"a": good, "b": replace(bad, deleting=NOW)}).may is May.WAIT


def test_a_circle_is_found_however_long_and_other_ways_are_none() -> None:
    after = {"a": ["b", "x"], "b": ["c"], "c": ["a"], "x": ["y"], "d": ["a"]}

    def edges(ids: object) -> dict[str, list[str]]:
        return {one: after[one] for one in ids if one in after}  # type: ignore[attr-defined]

    assert circle("a", edges) == ["a", "b", "c"]
    assert circle("d", edges) is None
    assert circle("x", edges) is None


@pytest.mark.parametrize("wide", [1, 100])
def test_a_circle_too_long_to_be_followed_is_said_and_never_taken_for_none(wide: int) -> None:
    asked: list[int] = []

    def edges(ids: Sequence[str]) -> dict[str, list[str]]:
        asked.append(len(ids))
        return {one: [f"{int(one) * wide + n + 1}" for n in range(wide)] for one in ids}

    with pytest.raises(TooManyBefore, match="more than 10,000 tasks"):
        circle("0", edges)
    assert max(asked) <= TOGETHER and len(asked) <= MOST_FOLLOWED + 1


def test_as_many_as_may_be_are_followed_to_the_end() -> None:
    def edges(ids: Sequence[str]) -> dict[str, list[str]]:
        return {one: [str(int(one) + 1)] for one in ids if int(one) < last}

    last = MOST_FOLLOWED
    assert circle("0", edges) is None
    last += 1
    with pytest.raises(TooManyBefore):
        circle("0", edges)
