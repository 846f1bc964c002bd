"""Files that go through, from the scientist to those who compute and back, leave the server's memory where it was."""

from __future__ import annotations

import pytest

from bench.files import Wanted, is_flat, measure


@pytest.mark.mongo
def test_200_mb_of_files_pass_end_to_end_in_flat_memory(mongo_uri: str) -> None:
    figures = measure(
        Wanted(mb=200, chunk_mb=20, out_mb=2, clients=2)
    )  # scripts/bench files does it with 5 GB

    assert figures["outcome"] == "succeeded" and figures["right"] == figures["chunks"] == 10
    assert is_flat(figures), figures
