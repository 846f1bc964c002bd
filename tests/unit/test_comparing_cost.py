"""What comparing answers, and telling failures apart, may cost at most: whatever strangers send."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime, timezone
from time import process_time
from typing import Any

import pytest

from source_server.domain.agreement import decide
from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.chunk import Candidate
from source_server.domain.comparing import MAX_COMPARED, Tolerance, same_json
from source_server.domain.signature import signature
from source_server.domain.validation import Validation
from source_server.services.tasks.validate import MOST_SHOWN, question

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def list_of(size: int, last: str) -> str:
    """A JSON list of ones of so many bytes, with this number at its end."""
    return "[" + "1," * ((size - len(last) - 2) // 2) + last + "]"


def test_an_answer_within_the_limit_is_compared_number_by_number_and_one_beyond_it_byte_for_byte() -> None:
    within, beyond = MAX_COMPARED - 10, MAX_COMPARED + 10

    assert same_json(list_of(within, "1.0"), list_of(within, "1.1"), relative=0.0, absolute=0.2)
    assert not same_json(list_of(beyond, "1.0"), list_of(beyond, "1.1"), relative=0.0, absolute=0.2)
    assert same_json(list_of(beyond, "1.0"), list_of(beyond, "1.0"), relative=0.0, absolute=0.2)


def test_sixteen_answers_of_the_largest_size_are_decided_in_moderate_time() -> None:
    answers = {str(n): list_of(MAX_COMPARED - 10, str(100 + n)) for n in range(16)}
    crowd = [Candidate(result=n, account=n, host=n, container=n, digest=n) for n in answers]
    begun = process_time()

    tolerance = Tolerance(answers, relative=0.0, absolute=0.5)
    said = decide(
        crowd, Validation(quorum=8), lambda one, other: bool(tolerance.same(one.digest, other.digest))
    )

    assert said.accepted is None
    # About 0.2 s; reading an answer anew for each comparison takes over 20.
    assert process_time() - begun < 5


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ('{"a": [1, {"b": 2}], "c": "x"}', '{"c": "x", "a": [1.01, {"b": 2}]}', True),
        ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}', False),
        ("[[1], 2]", "[1, [2]]", False),
        ("[[], 1]", "[1, []]", False),
        ("[1, true]", "[1, 1]", False),
        ('["1"]', "[1]", False),
        ("[null]", "[false]", False),
        ("1\n2", "1\n2.01", True),
        ("words 1\n2", "words 1\n2.01", True),
        ("words 1\n2", "words 2\n2", False),
        ('["\\n", 1]', '["\\n", 1.01]', True),
        ("1e400", "1.001e400", True),
        ("1e9999999", "2e9999999", False),
        ("[" * 5_000 + "]" * 5_000, "[" * 5_000 + " " + "]" * 5_000, False),
    ],
)
def test_values_agree_in_their_form_and_within_tolerance_in_their_numbers(
    one: str, other: str, agree: bool
) -> None:
    assert same_json(one, other, relative=0.02, absolute=0.0) is agree
    assert same_json(other, one, relative=0.02, absolute=0.0) is agree


# --- a validator's question


def test_a_question_has_its_bound_and_an_answer_that_is_too_large_to_be_shown_is_null() -> None:
    small, large = "1\n", "\x01" * 256 * 1024

    text = question(3, '{"a": 1}', [large, small, *[large] * 10])

    asked = json.loads(text)
    assert len(text) < MOST_SHOWN + 1000
    assert asked["answers"] == [None, small, *[None] * 10]
    assert (asked["run"], asked["count"], asked["input"]) == (3, 12, {"a": 1})
    assert asked["left_out"] == [0, *range(2, 12)]


def test_few_answers_are_shown_whatever_is_in_them() -> None:
    large = "\x01" * 256 * 1024

    assert json.loads(question(0, None, [large] * 5))["answers"] == [large] * 5


def test_a_question_carries_an_input_that_is_deeper_than_a_parser_bears() -> None:
    deep = "[" * 30_000 + "]" * 30_000

    assert f'"input": {deep}, "answers": ["1"]' in question(0, deep, ["1"])


# --- signatures


def failure(said: str) -> Attempt:
    known: dict[str, Any] = dict.fromkeys(("token", "ticket", "stdout", "runtime"), "")
    known |= {"started": NOW, "ended": NOW, "cpu_s": 0.0, "image": None, "run": 0, "chunk": "t.0"}
    return Attempt(outcome=Outcome.FAILED, exit_code=1, signal=None, stderr_tail=said, **known)


def test_a_failure_whose_line_holds_thousands_of_the_inputs_values_costs_little() -> None:
    dice = random.Random(1)
    line = "".join(dice.choice("ghijklmnopqrstuvwxyz ") for _ in range(2000)).strip()
    values = sorted({line[at : at + size] for at in range(1990) for size in (3, 4, 5, 6)})[:7000]
    begun = process_time()

    for _ in range(10):
        signature(failure(line), json.dumps(values))

    # About 0.2 s; with an expression for each value over 10.
    assert process_time() - begun < 3


def test_the_longest_values_of_a_line_are_masked_first_and_those_beyond_the_bound_stay() -> None:
    words = [f"w{'x' * n}" for n in range(1, 151)]
    inputs = json.dumps(words)

    long_ones = signature(failure(" ".join(words[-90:])[-1900:]), inputs)

    assert "wx" not in long_ones and "VALUE VALUE" in long_ones


def test_masking_by_hand_finds_what_an_expression_would() -> None:
    from source_server.domain.signature import _mask_value

    dice = random.Random(2)
    for _ in range(3000):
        line = "".join(dice.choice("ab_ -'é") for _ in range(12))
        value = "".join(dice.choice("ab_ -é") for _ in range(dice.randint(1, 3)))
        text = re.escape(value)
        pattern = rf"(?<=['\"`]){text}(?=['\"`])" if len(value) == 1 else rf"(?<!\w){text}(?!\w)"

        assert _mask_value(line, value) == re.sub(pattern, "VALUE", line), (line, value)
