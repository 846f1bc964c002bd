"""Several whole exports at once keep the web processes' memory near where it was when idle."""

from __future__ import annotations

import pytest

from bench.exports import measure


@pytest.mark.mongo
def test_four_exports_at_once_stay_within_50_mb_of_idle(mongo_uri: str) -> None:
    rows = 300_000  # scripts/bench exports does it with 2,000,000

    figures = measure(rows, 4)

    assert (figures["exports"], figures["rows_each"]) == (4, rows)
    assert figures["above_idle_mb"] < 50
