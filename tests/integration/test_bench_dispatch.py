"""The bench of dispatch works and its counts add up. How fast it is, is not a matter for a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench import tables
from bench.dispatch import Sizes, measure

pytestmark = pytest.mark.mongo

SIZES = Sizes(
    clients=(1, 3),
    ks=(1, 5),
    chunks=12,
    ready=(50, 100),
    calls=3,
    k=2,
    passed=60,
    containers=4,
    rounds=1,
)
SIDES = {"services", "http", "raw"}


@pytest.fixture(scope="module")
def figures(mongo_uri: str) -> dict[str, Any]:
    return measure(SIZES)


def numbers(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def test_every_figure_is_there_beside_its_raw_one_and_positive(figures: dict[str, Any]) -> None:
    measured = {(one["clients"], one["k"], one["through"]) for one in figures["throughput"]}
    ready = {(one["ready"], one["through"]) for one in figures["latency"]}
    passes = {(one["what"], one["through"]) for one in figures["passes"]}

    assert measured == {(n, k, side) for n in SIZES.clients for k in SIZES.ks for side in SIDES}
    assert ready == {(n, side) for n in SIZES.ready for side in SIDES}
    assert passes == {
        ("deal all", "services"),
        ("deal all", "http"),
        ("purge one that was dealt all", "services"),
        ("purge one that leased all", "services"),
        ("purge all that leased all", "services"),
    }
    for line in (*figures["throughput"], *figures["latency"], *figures["passes"], figures["looks_ms"]):
        assert all(value > 0 for _, value in numbers(line)), line
        assert line is figures["looks_ms"] or any("ratio" in name for name in line)


def test_every_chunk_that_was_claimed_was_delivered(figures: dict[str, Any]) -> None:
    for one in figures["throughput"]:
        claims = max(1, round(SIZES.chunks / (one["clients"] * one["k"]))) * one["clients"]
        asked = claims * one["k"]

        assert one["results"] == one["chunks"] <= asked
        assert one["through"] != "raw" or one["chunks"] == asked
        assert one["clients"] > 1 or one["chunks"] == asked


def test_raw_makes_every_write_that_the_services_make(figures: dict[str, Any]) -> None:
    operations = figures["operations"]

    for what in ("claim", "delivery"):
        assert operations["raw"][what]["writes"] == operations["services"][what]["writes"] != []
        assert operations["services"][what]["reads"]
    assert any("update chunks" in write for write in operations["raw"]["claim"]["writes"])
    delivered = operations["raw"]["delivery"]["writes"]
    assert any("update results" in write and "w: majority" in write for write in delivered)
    for one in figures["passes"]:
        assert one["through"] == "http" or any("chunks" in write for write in one["writes_for_one_chunk"])


def test_the_table_for_people_has_all_of_it(figures: dict[str, Any]) -> None:
    table = tables.markdown(figures)

    lines = [line for line in table.splitlines() if line.startswith("|")]
    heads = 2 * 4
    rows = sum(len(figures[part]) for part in ("throughput", "latency", "passes", "looks_ms"))
    assert len(lines) == heads + rows
