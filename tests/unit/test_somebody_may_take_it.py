"""Whatever keeps one container from a chunk leaves it to another: the bars together never hold everybody back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, product

import pytest

from source_server.domain.chunk import Candidate, Chunk, Failure
from source_server.domain.eligibility import Bar, Crowd, Taker, bar
from source_server.domain.validation import Distinct, Same, Validation

CHUNK = Chunk(id="t--after-0.0", project="p", task="t--after-0", n=0, r=0.5, rev=1, upload="reaction")
KINDS = [
    Taker(container="", host="", account=account, platform=platform, established=old, preferred=trusted)
    for account, platform, old, trusted in product("ab", ("arm64", "amd64"), (False, True), (False, True))
]


def crowds() -> Iterator[tuple[Taker, ...]]:
    """Up to three containers on hosts of their own; all of an account's are established, or none."""
    for size in (1, 2, 3):
        for kinds in combinations_with_replacement(KINDS, size):
            if len({(one.account, one.established) for one in kinds}) == len({one.account for one in kinds}):
                yield tuple(replace(one, container=f"c{n}", host=f"h{n}") for n, one in enumerate(kinds))


def chunks(takers: tuple[Taker, ...], rule: Validation) -> Iterator[Chunk]:
    """With each selection of them having failed, and fewer than the quorum having answered."""
    for failed, given in product(product((False, True), repeat=len(takers)), repeat=2):
        if sum(given) < rule.quorum:
            yield replace(
                CHUNK,
                candidates=tuple(_answer(one) for one, is_so in zip(takers, given, strict=True) if is_so),
                failed=tuple(_failure(one) for one, is_so in zip(takers, failed, strict=True) if is_so),
            )


def _answer(one: Taker) -> Candidate:
    who = {"account": one.account, "host": one.host, "container": one.container, "platform": one.platform}
    return Candidate(result=f"r{one.container}", digest="d", established=one.established, **who)


def _failure(one: Taker) -> Failure:
    return Failure(error=f"e{one.container}", host=one.host, account=one.account, signature="s")


@pytest.mark.parametrize(
    ("quorum", "distinct", "same"),
    [
        (1, Distinct.ACCOUNT, Same.ANY),
        (2, Distinct.ACCOUNT, Same.ARCH),
        (2, Distinct.HOST, Same.ANY),
        (3, Distinct.CONTAINER, Same.ARCH),
    ],
)
def test_a_chunk_that_nobody_holds_is_open_to_somebody_unless_all_have_answered_it(
    quorum: int, distinct: Distinct, same: Same
) -> None:
    rule = Validation(quorum=quorum, replicas=quorum, most=2 * quorum, distinct=distinct, same=same)
    seen = 0

    for crowd in crowds():
        takers = tuple(replace(one, platform="") for one in crowd) if same is Same.ANY else crowd
        for chunk in chunks(takers, rule):
            bars = [bar(chunk, one, rule, Crowd(takers=takers)) for one in takers]
            assert None in bars or set(bars) == {Bar.ANSWERED}, (chunk, takers, bars)
            seen += 1
    assert seen > 1000


def test_the_last_place_of_a_reaction_goes_to_an_established_account_though_others_are_trusted() -> None:
    first, second = (
        Taker(container=name, host=name, account=name, preferred=True) for name in ("one", "two")
    )
    old = Taker(container="old", host="old", account="old", established=True)
    rule, there = Validation(quorum=2, replicas=2, most=4), Crowd(takers=(first, second, old))
    answered = replace(CHUNK, candidates=(_answer(first),))

    assert [bar(CHUNK, one, rule, there) for one in (first, second, old)] == [None, None, Bar.KEPT]
    assert [bar(answered, one, rule, there) for one in (second, old)] == [Bar.UNPROVED, None]
