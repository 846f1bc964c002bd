"""How chunks are dealt: level by number, level by time, and never to one who may not have it."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.dealing import Scale, level, speeds


def test_by_speed_everybody_is_done_at_about_the_same_time() -> None:
    rates = {"slow": 1.0, "usual": 10.0, "fast": 100.0}

    dealt = Counter(itertools.islice(level(dict.fromkeys(rates, 0), speeds(rates)), 1110))

    assert dealt == {"slow": 10, "usual": 100, "fast": 1000}


def test_by_speed_what_is_held_already_counts_as_time() -> None:
    rates = {"slow": 1.0, "fast": 10.0}

    dealt = Counter(itertools.islice(level({"slow": 0, "fast": 100}, speeds(rates)), 10))

    assert dealt == {"slow": 10}  # the fast one is busy for as long as the slow one is with ten


@given(st.lists(st.floats(min_value=0.01, max_value=1e6), min_size=1, max_size=8), st.integers(1, 500))
def test_by_speed_no_container_ends_more_than_one_of_its_chunks_after_another_would_have(
    rates: list[float], chunks: int
) -> None:
    known = {f"c{n}": rate for n, rate in enumerate(rates)}

    dealt = Counter(itertools.islice(level(dict.fromkeys(known, 0), known), chunks))

    last = max(dealt[container] / rate for container, rate in known.items())
    assert all((dealt[container] + 1) / rate >= last * (1 - 1e-9) for container, rate in known.items())


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"a": 2.0, "b": 8.0, "new": 0.0}, {"a": 2.0, "b": 8.0, "new": 5.0}),
        ({"a": 1.0, "b": 2.0, "c": 90.0, "new": 0.0}, {"a": 1.0, "b": 2.0, "c": 90.0, "new": 2.0}),
        ({"one": 0.0, "two": 0.0}, {"one": 1.0, "two": 1.0}),
        ({}, {}),
    ],
)
def test_a_newcomer_counts_as_the_median_of_the_others(
    rates: dict[str, float], expected: dict[str, float]
) -> None:
    assert speeds(rates) == expected


def test_who_may_not_have_a_chunk_is_passed_over_and_keeps_its_place() -> None:
    scale = Scale({"a": 0, "b": 5, "c": 5})

    special = scale.take(lambda container: container != "a")
    usual = scale.take()

    assert (special, usual) == ("b", "a")


def test_a_chunk_that_nobody_may_have_goes_to_nobody() -> None:
    scale = Scale({"a": 0, "b": 0})

    assert scale.take(lambda _: False) is None
    assert [scale.take() for _ in range(4)] == ["a", "b", "a", "b"]
