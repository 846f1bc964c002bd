"""Agreement, eligibility, comparison, trust, fair share and requirements: small pure rules. Time is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from agreeing import same_json
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain import settling
from source_server.domain import transitions as rules
from source_server.domain.agreement import Agree, decide, gave, same_answer
from source_server.domain.attempt import Verdict
from source_server.domain.chunk import Candidate, Chunk, ChunkState, Failure, Lease
from source_server.domain.eligibility import Bar, Crowd, Taker, bar, platform
from source_server.domain.requirements import Requirement, met, unmet
from source_server.domain.share import Claim, decayed, turns
from source_server.domain.trust import (
    HostRecord,
    Standing,
    in_flight_limit,
    is_established,
    must_quarantine,
    needs_no_second_opinion,
)
from source_server.domain.validation import Comparison, Distinct, Same, Validation

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
TWO = Validation(quorum=2, replicas=2, most=3)


def answer(result: str, digest: str = "x", account: str | None = None, **other: object) -> Candidate:
    who = account or f"account of {result}"
    made = Candidate(
        result=result, account=who, host=f"host of {who}", container=f"c of {result}", digest=digest
    )
    return replace(made, **other)


def fresh(replicas: int = 2, **other: object) -> Chunk:
    made = Chunk(
        id="t.0", project="p", task="t", n=0, r=0.5, rev=1, upload="u", replicas=replicas, wanted=replicas
    )
    return replace(made, **other)


def taker(name: str, account: str | None = None, **other: object) -> Taker:
    return replace(Taker(container=name, host=f"host of {name}", account=account or name), **other)


def leased(chunk: Chunk, who: Taker) -> Chunk:
    new = Lease(
        token="t",
        container=who.container,
        life="l",
        host=who.host,
        account=who.account,
        since=NOW,
        until=NOW,
        platform=who.platform,
        established=who.established,
    )
    return rules.lease(chunk, new)


# --- agreement


def test_the_earliest_answer_with_enough_others_like_it_is_accepted_and_only_then_is_anybody_blamed() -> None:
    wrong, first, second = answer("r1", "lie"), answer("r2"), answer("r3")

    before = decide([wrong, first], TWO, same_answer)
    after = decide([wrong, first, second], TWO, same_answer)

    assert (before.accepted, before.disagreed, before.missing) == (None, (), 1)
    assert (after.accepted, after.agreed, after.disagreed) == ("r2", ("r3",), ("r1",))


def test_answers_are_measured_against_one_of_them_because_a_tolerance_is_not_transitive() -> None:
    def near(one: Candidate, other: Candidate) -> bool:
        return abs(int(one.digest) - int(other.digest)) <= 1

    low, middle, high = answer("r1", "1"), answer("r2", "2"), answer("r3", "3")

    assert decide([low, middle, high], TWO, near).disagreed == ("r3",)
    assert decide([low, middle, high], replace(TWO, quorum=3), near).accepted == "r2"
    assert decide([low, high], replace(TWO, quorum=3), near).missing == 2


@given(st.integers(1, 4), st.lists(st.sampled_from("xyz"), max_size=8))
def test_a_verdict_needs_a_quorum_and_names_every_other_answer_once(quorum: int, digests: list[str]) -> None:
    answers = [answer(f"r{n}", digest) for n, digest in enumerate(digests)]
    largest = max((digests.count(digest) for digest in digests), default=0)

    verdict = decide(answers, replace(TWO, quorum=quorum), same_answer)

    assert (verdict.accepted is not None) == (largest >= quorum)
    named = (*verdict.agreed, *verdict.disagreed, *([verdict.accepted] if verdict.accepted else []))
    assert sorted(named) == (sorted(one.result for one in answers) if verdict.accepted else [])
    assert verdict.missing == (0 if verdict.accepted else quorum - largest)


@pytest.mark.parametrize(
    ("distinct", "other", "again"),
    [
        (Distinct.ACCOUNT, {"host": "h2", "container": "c2"}, True),
        (Distinct.ACCOUNT, {"account": "b"}, False),
        (Distinct.HOST, {"container": "c2"}, True),
        (Distinct.HOST, {"host": "h2"}, False),
        (Distinct.HOST, {"account": "b"}, False),
        (Distinct.CONTAINER, {"account": "b", "host": "h2"}, True),
        (Distinct.CONTAINER, {"container": "c2"}, False),
    ],
)
def test_one_account_host_or_container_gives_one_answer(
    distinct: Distinct, other: dict[str, str], again: bool
) -> None:
    known = answer("r1", account="a", host="h1", container="c1")

    assert gave(replace(TWO, distinct=distinct), [known], replace(known, result="r2", **other)) is again


# --- what answers do to their chunk


def always(_: Sequence[Candidate]) -> Agree:
    return same_answer


def settled(chunk: Chunk, *answers: Candidate, rule: Validation = TWO, trusted: bool = False) -> Chunk:
    for one in answers:
        chunk = settling.counted(chunk, one, "t", rule)
        chunk = settling.decided(chunk, rule, always, trusted=trusted)
    return chunk


def test_two_that_agree_decide_and_a_disagreement_asks_for_one_more_up_to_the_limit() -> None:
    agreed = settled(fresh(), answer("r1"), answer("r2"))
    quarrel = settled(fresh(), answer("r1"), answer("r2", "y"))
    hopeless = settled(quarrel, answer("r3", "z"))

    assert (agreed.state, agreed.result) == (ChunkState.DONE, "r1")
    assert (quarrel.state, quarrel.wanted, quarrel.replicas) == (ChunkState.READY, 1, 3)
    assert (hopeless.state, len(hopeless.candidates)) == (ChunkState.QUARANTINED, 3)
    assert settled(hopeless, answer("r4")).result == "r1", "a late good answer still decides"


def test_a_second_answer_of_one_account_counts_for_nothing_but_ends_its_lease() -> None:
    one = settled(fresh(), answer("r1", account="a"))
    again = answer("r2", account="a")
    held = leased(one, taker(again.container, "a"))

    after = settling.counted(held, again, "t", TWO)

    assert (len(after.candidates), after.leases, after.wanted) == (1, (), 1)
    assert settling.verdict(again, 0, after, TWO, always) is Verdict.DUPLICATE


def test_without_a_second_opinion_the_first_answer_decides_only_for_the_trusted() -> None:
    adaptive = replace(TWO, adaptive=True)

    assert settled(fresh(1), answer("r1"), rule=adaptive, trusted=True).result == "r1"
    doubted = settled(fresh(1), answer("r1"), rule=adaptive)
    assert (doubted.state, doubted.wanted) == (ChunkState.READY, 1)


def test_an_answer_unlike_one_that_was_taken_on_trust_is_no_disagreement() -> None:
    adaptive = replace(TWO, adaptive=True)
    trusted = settled(fresh(1), answer("r1"), rule=adaptive, trusted=True)
    backed = settled(fresh(), answer("r1"), answer("r2"), rule=adaptive)

    late = answer("late", "y")

    assert settling.verdict(late, 0, trusted, adaptive, always) is Verdict.DUPLICATE
    assert settling.verdict(late, 0, backed, adaptive, always) is Verdict.DISAGREED


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (fresh(), None),
        (fresh(candidates=(answer("mine"),)), Verdict.CANDIDATE),
        (settled(fresh(), answer("mine"), answer("r2")), Verdict.ACCEPTED),
        (settled(fresh(), answer("r2"), answer("mine")), Verdict.AGREED),
        (settled(fresh(), answer("r2", "y"), answer("mine"), answer("r3", "y")), Verdict.DISAGREED),
        (fresh(state=ChunkState.CANCELLED), Verdict.CANCELLED),
        (fresh(run=1), Verdict.DUPLICATE),
        (fresh(run=-1), None),
    ],
)
def test_a_verdict_follows_from_the_chunk_as_a_majority_has_it(
    chunk: Chunk, expected: Verdict | None
) -> None:
    assert settling.verdict(answer("mine"), 0, chunk, TWO, always) is expected


def test_what_a_validator_never_compared_is_not_blamed() -> None:
    validated = replace(TWO, comparison=Comparison.VALIDATOR)
    decided = settled(fresh(), answer("r1"), answer("r2"), rule=validated)

    assert settling.verdict(answer("late", "y"), 0, decided, validated, always) is Verdict.DUPLICATE


def test_a_failure_counts_once_and_a_stale_one_not_at_all() -> None:
    chunk = leased(fresh(1), taker("c1"))
    failed = Failure(error="e1", host="h", account="a", signature="s")
    who = {"container": "c1", "token": "t"}

    def count(chunk: Chunk, run: int = 0) -> Chunk:
        return settling.counted_failure(chunk, failed, run, **who, now=NOW, fleet=None)

    once = count(chunk)
    held_again = leased(rules.wake(once), taker("c1"))

    assert once.failures == 1 and count(held_again) == held_again
    assert count(fresh(1)) == fresh(1) and count(chunk, run=1) == chunk
    assert settling.failure_verdict("e1", 0, once, **who) is Verdict.COUNTED
    assert settling.failure_verdict("e1", 0, chunk, **who) is None
    assert settling.failure_verdict("e1", 0, fresh(1), **who) is Verdict.STALE
    assert settling.failure_verdict("e1", 0, replace(chunk, run=1), **who) is Verdict.STALE


# --- eligibility


def crowd(*takers: Taker) -> Crowd:
    return Crowd(takers=takers)


def test_who_holds_a_chunk_or_has_answered_it_takes_no_second_attempt() -> None:
    a, same_account, b = taker("c1", "a"), taker("c2", "a"), taker("c3", "b")
    chunk = leased(fresh(), a)

    assert bar(chunk, a, TWO, crowd()) is Bar.HOLDS_IT
    assert bar(chunk, same_account, TWO, crowd()) is Bar.ANSWERED
    assert bar(settled(fresh(), answer("r1", account="a")), same_account, TWO, crowd()) is Bar.ANSWERED
    assert bar(chunk, b, TWO, crowd()) is None
    assert bar(leased(fresh(), a), same_account, Validation(), crowd()) is None


def test_answers_are_compared_only_within_one_platform() -> None:
    arm, intel = taker("c1", platform="arm64"), taker("c2", platform="amd64")

    another_arm = taker("c3", platform="arm64")

    assert bar(leased(fresh(), arm), intel, TWO, crowd(arm, another_arm, intel)) is Bar.PLATFORM
    labels: dict[str, str | float] = {"arch": "amd64", "cpu_family": "zen4"}
    assert [platform(replace(TWO, same=same), labels) for same in Same] == ["", "amd64", "amd64/zen4"]


def test_a_platform_that_nobody_else_is_there_for_keeps_nobody_out() -> None:
    odd, intel = taker("c1", platform="made up"), taker("c2", platform="amd64")
    mixed = settled(settled(fresh(), answer("r1", account="a")), answer("r2", account="b"))
    both = tuple(
        replace(one, platform=name) for one, name in zip(mixed.candidates, ("arm64", "amd64"), strict=True)
    )

    assert bar(leased(fresh(), odd), intel, TWO, crowd(odd, intel)) is None
    assert bar(replace(mixed, candidates=both), intel, TWO, crowd(intel)) is None


def test_the_last_place_is_not_kept_for_an_established_account_whose_host_failed_with_the_chunk() -> None:
    old, new = taker("c1", established=True), taker("c2")
    chunk = leased(fresh(), taker("c3"))
    failed = (Failure(error="e", host=old.host, account=old.account, signature="s"),)

    assert bar(replace(chunk, failed=failed), new, TWO, crowd(old, new)) is None


def test_the_last_place_is_kept_for_an_established_account_while_one_could_take_it() -> None:
    old, new = taker("c1", established=True), taker("c2")
    chunk = leased(fresh(), taker("c3"))

    assert bar(chunk, new, TWO, crowd(old, new)) is Bar.UNPROVED
    assert bar(chunk, new, TWO, crowd(new)) is None
    assert bar(chunk, old, TWO, crowd(old, new)) is None
    assert bar(leased(fresh(), old), new, TWO, crowd(old, new)) is None


def test_a_host_where_it_failed_waits_for_the_others_but_not_for_ever() -> None:
    here, there = taker("c1"), taker("c2")
    chunk = fresh(1, failed=(Failure(error="e", host=here.host, account=here.account, signature="s"),))

    assert bar(chunk, here, Validation(), crowd(here, there)) is Bar.FAILED_HERE
    assert bar(chunk, here, Validation(), crowd(here)) is None
    assert bar(chunk, there, Validation(), crowd(here, there)) is None


# --- comparing


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("1.0", "1.0000001", True),
        ("1.0", "1.01", False),
        ('{"a": [1, 2.0]}', '{"a": [1.0, 2.0000001]}', True),
        ('{"a": 1}', '{"b": 1}', False),
        ("[1, 2]", "[1, 2, 3]", False),
        ("true", "1", False),
        ("null", "0", False),
        ('"1.0"', '"1.0000001"', False),
        ("1.0\n2.0\n", "1.0000001\n2.0000001\n", True),
        ("1.0\n2.0\n", "2.0\n1.0\n", False),
        ("not json", "not json", True),
        ("not json", "not  json", False),
        ("NaN", "NaN", True),
        ("NaN", "1", False),
        ("1" * 400, "1" * 399 + "2", True),
        ("1e999999999", "2e999999999", False),
        ("[" * 100_000, "[" * 99_999, False),
        ('["a\u2028b", 1.0]', '["a\u2028b", 1.0000001]', True),
    ],
)
def test_json_answers_agree_when_their_numbers_are_near(one: str, other: str, agree: bool) -> None:
    assert same_json(one, other, relative=1e-6, absolute=0.0) is agree
    assert same_json(other, one, relative=1e-6, absolute=0.0) is agree


def test_near_zero_the_absolute_tolerance_counts() -> None:
    assert not same_json("0", "0.001", relative=0.1, absolute=0.0)
    assert same_json("0", "0.001", relative=0.1, absolute=0.001)


# --- trust


def test_a_host_begins_with_two_chunks_a_slot_and_keeps_one_however_bad_it_is() -> None:
    record = HostRecord(account="a", host="h")

    assert in_flight_limit(None, 3) == in_flight_limit(record, 3) == 6
    assert in_flight_limit(replace(record, limit=0.2), 3) == 1
    assert in_flight_limit(replace(record, limit=1e9), 2) == 1024


@pytest.mark.parametrize(
    ("agreed", "days", "expected"), [(20, 7, True), (19, 7, False), (20, 6, False), (0, None, False)]
)
def test_an_account_is_established_after_twenty_agreements_and_a_week(
    agreed: int, days: int | None, expected: bool
) -> None:
    first = None if days is None else NOW - timedelta(days=days)

    assert is_established(Standing(agreed=agreed, first_agreed=first), NOW) is expected


def test_one_in_n_answers_of_a_trusted_host_is_checked_and_the_dice_fall_the_same_way_again() -> None:
    trusted = HostRecord(account="a", host="h", streak=10)

    def unchecked(record: HostRecord | None) -> list[bool]:
        return [needs_no_second_opinion(record, f"r{n}", b"secret") for n in range(2000)]

    assert unchecked(trusted) == unchecked(trusted)
    assert 1700 < sum(unchecked(trusted)) < 1900
    assert not any(unchecked(replace(trusted, streak=9))) and not any(unchecked(None))
    assert not any(unchecked(replace(trusted, quarantined=NOW)))


def test_a_host_is_quarantined_for_three_blames_or_three_disagreements_and_says_why() -> None:
    record = HostRecord(account="a", host="h", blamed=2, disagreed=2)

    assert must_quarantine(record) is None
    assert "failed here" in (must_quarantine(replace(record, blamed=3)) or "")
    assert "disagreed" in (must_quarantine(replace(record, disagreed=3)) or "")
    assert must_quarantine(replace(record, disagreed=9, quarantined=NOW)) is None


# --- fair share


def test_priority_is_strict_and_below_it_the_least_served_for_its_share_comes_first() -> None:
    claims = [
        Claim(project="much", usage=100.0, as_of=NOW),
        Claim(project="large share", share=10.0, usage=200.0, as_of=NOW),
        Claim(project="long ago", usage=100.0, as_of=NOW - timedelta(days=3)),
        Claim(project="urgent", priority=1, usage=1e9, as_of=NOW),
    ]

    assert turns(claims, NOW) == ["urgent", "long ago", "large share", "much"]


def test_a_newcomer_neither_waits_nor_takes_all() -> None:
    little, much = (Claim(project=name, usage=used, as_of=NOW) for name, used in (("b", 5.0), ("c", 50.0)))

    assert turns([much, little, Claim(project="z")], NOW) == ["z", "b", "c"]


def test_usage_counts_half_after_a_day_and_a_clock_that_goes_back_adds_nothing() -> None:
    assert decayed(8.0, NOW - timedelta(days=2), NOW) == 2.0
    assert decayed(8.0, NOW + timedelta(days=2), NOW) == 8.0


# --- requirements


@pytest.mark.parametrize(
    ("requirement", "has", "expected"),
    [
        (Requirement(name="arch", one_of=("amd64", "arm64")), {"arch": "arm64"}, True),
        (Requirement(name="arch", one_of=("amd64",)), {"arch": "arm64"}, False),
        (Requirement(name="arch", one_of=("amd64",)), {}, False),
        (Requirement(name="gpus", one_of=("2",)), {"gpus": 2}, True),
        (Requirement(name="memory_mb", at_least=4096.0), {"memory_mb": 4096}, True),
        (Requirement(name="memory_mb", at_least=4096.0), {"memory_mb": 4095}, False),
        (Requirement(name="memory_mb", at_least=4096.0), {"memory_mb": "8000"}, False),
    ],
)
def test_what_is_not_there_or_not_enough_meets_nothing(
    requirement: Requirement, has: dict[str, str | float], expected: bool
) -> None:
    assert met(requirement, has) is expected
    assert unmet([requirement], has) == ([] if expected else [requirement])


def test_a_requirement_reads_as_people_write_it() -> None:
    asked = (
        Requirement(name="memory_mb", at_least=65536.0),
        Requirement(name="arch", one_of=("amd64", "arm64")),
    )

    assert list(map(str, asked)) == ["memory_mb at least 65536", "arch = amd64 or arm64"]
