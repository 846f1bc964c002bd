"""What comparing answers, and telling failures apart, may cost at most: whatever strangers send."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime, timezone
from time import process_time
from typing import Any

import pytest
from agreeing import same_json

from source_server.domain.agreement import decide
from source_server.domain.attempt import Attempt, Outcome
from source_server.domain.chunk import Candidate, ChunkFile
from source_server.domain.comparing import MAX_COMPARED, Tolerance
from source_server.domain.signature import signature
from source_server.domain.validation import Validation
from source_server.services.tasks.question import KEPT_FREE, MOST_SHOWN, Answer, Given, question

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


def asked(text: str | None, answers: list[str], *, run: int = 0) -> str:
    return question(run, Given(text=text), [Answer(text=one) for one in answers]).text


def test_a_question_has_its_bound_and_an_answer_that_is_too_large_to_be_shown_is_null() -> None:
    small, large = "1\n", "\x01" * 256 * 1024

    text = asked('{"a": 1}', [large, small, *[large] * 10], run=3)

    said = json.loads(text)
    assert len(text) < MOST_SHOWN + 1000
    assert said["answers"] == [None, small, *[None] * 10]
    assert (said["run"], said["count"], said["input"]) == (3, 12, {"a": 1})
    assert said["left_out"] == [0, *range(2, 12)]


def test_few_answers_are_shown_whatever_is_in_them() -> None:
    large = "\x01" * 256 * 1024

    assert json.loads(asked(None, [large] * 5))["answers"] == [large] * 5


def test_a_question_carries_an_input_that_is_deeper_than_a_parser_bears() -> None:
    deep = "[" * 30_000 + "]" * 30_000

    assert f'"input": {deep}, "answers": ["1"]' in asked(deep, ["1"])


def kept(name: str, size: int = 10, mark: str = "a") -> ChunkFile:
    return ChunkFile(name=name, sha256=mark * 64, bytes=size)


def test_files_lie_where_the_question_says_or_under_their_hash_where_a_name_would_be_too_deep() -> None:
    deep = "/".join("abcdefghijklmnop")
    given = Given(file=kept("chunk.json", 5), files=(kept("a.bin", mark="b"),))
    answers = [Answer(text="", files=(kept("x", mark="c"), kept(deep, mark="d"))), Answer(text="", files=())]

    asked = question(0, given, answers, room=1000)

    said = json.loads(asked.text)
    assert said["input"] is None and said["left_out"] == []
    assert said["input_file"] == {"sha256": "a" * 64, "bytes": 5, "path": "input/chunk.json"}
    assert [one["path"] for one in said["files"]] == ["input/a.bin"]
    assert [one["path"] for one in said["answer_files"][0]] == [f"answers/0/{mark * 64}" for mark in "cd"]
    assert [one["name"] for one in said["answer_files"][0]] == ["x", deep] and said["answer_files"][1] == []
    told = [one["path"] for one in (*said["files"], said["input_file"], *said["answer_files"][0])]
    assert sorted(one.name for one in asked.files) == sorted(told)


def test_an_answer_whose_files_take_more_than_its_part_of_the_room_is_worth_nothing() -> None:
    given = Given(text="{}", files=(kept("in.bin", 400),))
    large, many = Answer(text="1", files=(kept("x", 301),)), [kept(f"f{n}") for n in range(500)]
    fine = Answer(text="1", files=(kept("x", 300),))

    asked = question(0, given, [large, fine], room=1000)
    crowded = question(0, given, [fine, Answer(text="2", files=tuple(many))], room=100_000)
    only_told = question(0, given, [large, fine])

    assert json.loads(asked.text)["left_out"] == [0]
    assert json.loads(asked.text)["answer_files"][0] is None
    assert [one.name for one in asked.files] == ["input/in.bin", "answers/1/x"]
    assert json.loads(crowded.text)["left_out"] == [1] and len(crowded.files) == 2
    assert json.loads(only_told.text)["left_out"] == [] and only_told.files == ()
    assert "path" not in json.loads(only_told.text)["answer_files"][0][0]


def test_files_of_an_input_that_take_more_than_half_of_the_room_are_only_told_of() -> None:
    given = Given(text="{}", files=(kept("in.bin", 501),))

    asked = question(0, given, [Answer(text="1", files=(kept("x", 500),))] * 2, room=1000)

    assert [one.name for one in asked.files] == ["answers/0/x", "answers/1/x"]
    assert json.loads(asked.text)["files"] == [{"name": "in.bin", "sha256": "a" * 64, "bytes": 501}]


def test_a_question_about_the_most_and_longest_names_still_fits_into_a_document() -> None:
    part = "\u00e9" * 100
    names = ["/".join([part] * 4 + [f"{n:04}"]) for n in range(1000)]
    files = tuple(kept(name, 1) for name in names)
    given = Given(text="{}", files=files)

    asked = question(0, given, [Answer(text="1", files=files)] * 16, room=KEPT_FREE)

    assert len(asked.text) < 1.3 * MOST_SHOWN and len(asked.files) <= 1000
    assert len(asked.text) + sum(len(one.name.encode()) + 200 for one in asked.files) < 15 * 2**20


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
