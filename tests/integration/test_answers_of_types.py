"""Result types, through the whole of accepting: what does not fit is an error of its attempt, and never refused."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.mongo

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("result", "good", "bad", "says"),
    [
        ({"type": "number"}, "4.5\n", "four\n", "The answer is not one number: it is 'four'."),
        ({"type": "json"}, "[1]", "[NaN]", "The answer is not JSON: NaN is not a JSON number."),
        (
            {"type": "json", "schema": POINT},
            '{"x": 1}',
            '{"x": "1"}',
            'The answer does not fit its schema at /x: it is not of type "number".',
        ),
    ],
)
def test_an_answer_of_another_type_is_an_error_of_its_attempt(
    scientist: Any, volunteer: Any, result: Any, good: str, bad: str, says: str
) -> None:
    task = scientist.running(2, result=result)
    who = volunteer()
    first, second = who.claim(2)

    added = who.add(who.attempt(first, good), who.attempt(second, bad))

    assert [one.get("stored") for one in added.get_json()["results"]] == [True, True]
    [error] = scientist.ok("GET", f"/errors?task={task}")["errors"]
    assert (error["chunk"], error["outcome"], error["exit_code"]) == (second["id"], "failed", 0)
    assert error["stderr_tail"].splitlines()[-1] == says
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"].get("done") == 1


def test_with_several_rows_the_line_that_does_not_fit_is_named(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(3, rows_per_chunk=3, result={"type": "json", "schema": POINT})
    who = volunteer()
    [chunk] = who.claim()

    who.add(who.attempt(chunk, '{"x": 1}\n{}\n{"x": 3}\n'))

    [error] = scientist.ok("GET", f"/errors?task={task}")["errors"]
    assert error["stderr_tail"] == 'Line 2 of the answer does not fit its schema: "x" is a required property.'


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"type": "json", "schema": {"type": "nonsense"}}, "the schema is no JSON Schema"),
        ({"type": "json", "schema": {"$ref": "https://example.org/"}}, "must name a part of itself"),
        ({"type": "number", "schema": {}}, "a schema needs the type 'json'"),
        ({"type": "files"}, "needs 'outputs'"),
        ({"type": "picture"}, "result.type"),
    ],
)
def test_a_result_type_that_cannot_be_checked_is_refused_when_the_task_is_made(
    scientist: Any, result: Any, says: str
) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})

    refused = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "result": result})

    assert refused.status_code == 400
    assert says in refused.get_json()["error"]


HEAVY = {"type": "json", "schema": {"items": {"allOf": [{"type": "integer"}] * 600}}}
LONG = "[" + "1," * 20_000 + "1]"  # so long that two of them are as much as a request may make work


def test_what_takes_too_long_to_check_together_is_sent_again(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(4, result=HEAVY)
    who = volunteer()
    sent = [who.attempt(one, LONG) for one in who.claim(4)]

    first = who.add(*sent).get_json()["results"]
    later = [one for one, said in zip(sent, first, strict=True) if not said.get("stored")]
    second = who.add(*later).get_json()["results"]

    assert [one.get("status") for one in first] == [None, None, 503, 503]
    assert [one.get("stored") for one in second] == [True, True]
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"].get("done") == 4


def test_the_same_answer_many_times_in_a_request_is_checked_once_and_counted_once(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(2, result=HEAVY)
    who = volunteer()
    one, other = who.claim(2)

    said = who.add(*[who.attempt(one, LONG)] * 12, who.attempt(other, LONG)).get_json()["results"]
    again = who.add(*[who.attempt(one, LONG)] * 3).get_json()["results"]

    assert [each.get("stored") for each in said + again] == [True] * 16
    assert raw.results.count_documents({}) == 2


def test_one_wrong_answer_after_another_is_refused_and_no_longer_looked_at(
    scientist: Any, volunteer: Any, raw: Any
) -> None:
    scientist.running(1, result=HEAVY)
    who = volunteer()
    [chunk] = who.claim()
    wrong = [who.attempt(chunk, f'["{n}", {LONG}]') for n in range(9)]

    said = who.add(*wrong).get_json()["results"]

    assert [each.get("status") for each in said] == [None, None, *[409] * 7]  # and no 503: they made no work
    assert raw.errors.count_documents({}) == 2
