"""The quickstart's program: exact sums, and what is bad data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ADD_PAIRS = Path(__file__).parents[2] / "images" / "examples" / "pairs" / "add_pairs.py"


def add_pairs(stdin: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a client does: one chunk on stdin."""
    return subprocess.run([sys.executable, ADD_PAIRS], input=stdin, capture_output=True, text=True)


def row(a: object, b: object) -> dict[str, object]:
    return {"a": a, "b": b}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("1", "2", "3"),
        ("-5", "+3", "-2"),
        (" 7 ", "007", "14"),
        (1, 2, "3"),
        (str(10**300), "1", f"{10**300 + 1}"),
        (2**80, -1, f"{2**80 - 1}"),
        ("0.1", "0.2", "0.3"),
        (0.1, 0.2, "0.3"),
        ("1.50", "1", "2.50"),
        (".5", "5.", "5.5"),
        ("1e20", "1", "100000000000000000001"),
    ],
)
def test_a_sum_is_exact(a: object, b: object, expected: str) -> None:
    done = add_pairs(json.dumps(row(a, b)))

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


def test_a_chunk_of_many_rows_gives_one_line_each_in_order() -> None:
    rows = [row(str(n), str(n * n)) for n in range(500)]

    done = add_pairs(json.dumps({"rows": rows, "first_row": 1000}))

    assert done.returncode == 0
    assert done.stdout == "".join(f"{n + n * n}\n" for n in range(500))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (row("1", "two"), "'two' is not a number"),
        (row("", "1"), "'' is not a number"),
        (row("1", "NaN"), "'NaN' is not a number"),
        (row("1", "inf"), "'inf' is not a number"),
        (row("1", "1_000"), "'1_000' is not a number"),
        (row("1", "\u0663"), "is not a number"),
        (row(True, 1), "'True' is not a number"),
        (row(None, 1), "'None' is not a number"),
        (row("1", ["2"]), "is not a number"),
        (row("9" * 4002, "1"), "is not a number"),
        (row("1e9000", "1e-9000"), "the sum has more than 10,000 digits"),
        ({"a": "1"}, "wants the fields a and b"),
        ("1,2", "wants the fields a and b"),
    ],
)
def test_a_row_that_is_not_two_numbers_is_bad_data_and_named(bad: object, complaint: str) -> None:
    done = add_pairs(json.dumps({"rows": [row("1", "2"), bad, row("3", "4")], "first_row": 40}))

    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith("row 41: ") and complaint in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "chunk", ["", "{", '{"rows": 3}', '{"rows": [], "first_row": "x"}', '{"a": 1, "b": 1' + "0" * 5000 + "}"]
)
def test_input_that_is_no_chunk_is_bad_data_in_one_line(chunk: str) -> None:
    done = add_pairs(chunk)

    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith("row 0: ") and done.stderr.count("\n") == 1
