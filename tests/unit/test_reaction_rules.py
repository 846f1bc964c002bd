"""Reactions by their pure rules (tests/model has every interleaving of them); what depends on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

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
