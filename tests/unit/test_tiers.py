"""What the quick check runs is all there is of the unit tests: `scripts/test --checked` leaves them out."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_no_unit_test_needs_a_database_or_an_engine() -> None:
    marked = [
        one.name
        for one in HERE.glob("test_*.py")
        if re.search(r"pytest\.mark\.(mongo|docker)\b", one.read_text())
    ]

    assert len(list(HERE.glob("test_*.py"))) > 50
    assert marked == []
