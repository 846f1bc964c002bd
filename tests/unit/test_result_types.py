"""Result types: what an answer must be, with a sentence that names the place; what a stranger's schema cannot do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.job import ResultKind, ResultType
from source_server.domain.patterns import fits
from source_server.domain.result_type import DIALECT, MOST_SCHEMA, BadSchema, misfit, require_schema

ROOT = Path(__file__).parents[2]
NUMBER = ResultType(kind=ResultKind.NUMBER)
POINT = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["x"],
}
PATIENCE_S = (
    5.0  #: what a single look may take on the busiest machine; unbounded ones take minutes or for ever
)


def shaped(schema: Any) -> ResultType:
    return ResultType(kind=ResultKind.JSON, schema=json.dumps(schema))


# --- text, numbers


def test_text_is_whatever_it_is() -> None:
    assert misfit(ResultType(), "NaN } anything\n") is None


@pytest.mark.parametrize("answer", ["42\n", " -1.5e-3 \n", "+.5", "3.", "1e308", "0"])
def test_a_finite_number_is_a_number(answer: str) -> None:
    assert misfit(NUMBER, answer) is None


@pytest.mark.parametrize(
    "answer",
    ["", "NaN", "Infinity", "-inf", "1e309", "4 2", "4\n2", "0x10", "1_000", "forty", "1,5", "٣", "9" * 401],
)
def test_anything_else_is_none(answer: str) -> None:
    said = misfit(NUMBER, answer)

    assert said is not None and said.startswith("The answer is not") and said.endswith(".")


def test_with_rows_each_line_is_a_number_and_the_wrong_one_is_named() -> None:
    assert misfit(NUMBER, "1\n2\n3\n", rows=3) is None
    assert misfit(NUMBER, "1\ntwo\n3\n", rows=3) == "Line 2 of the answer is not one number: it is 'two'."


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_every_number_that_python_writes_is_one(number: float) -> None:
    assert misfit(NUMBER, repr(number)) is None


# --- JSON


@pytest.mark.parametrize("answer", ["{}", '{"a": [1, 2.5, null, "x"]}', "3", " true\n", '"text"'])
def test_json_is_json(answer: str) -> None:
    assert misfit(ResultType(kind=ResultKind.JSON), answer) is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "The answer is not JSON: Expecting value: line 1 column 1 (char 0)."),
        ("NaN", "The answer is not JSON: NaN is not a JSON number."),
        ('{"a": [1, -Infinity]}', "The answer is not JSON: -Infinity is not a JSON number."),
        ("[1e999]", "The answer is not JSON: '1e999' is no finite number."),
        ("{'a': 1}", "The answer is not JSON: Expecting property name"),
        ("1 2", "The answer is not JSON: Extra data"),
        ("[" * 65 + "]" * 65, "The answer is nested more than 64 deep."),
        ("[" * 100_000 + "]" * 100_000, "The answer is nested too deeply."),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "The answer is nested too deeply."),
        ("1" * 200_000, "The answer is not JSON: a number has 200000 letters, more than 400."),
    ],
)
def test_what_is_no_sound_json_is_told_where(answer: str, says: str) -> None:
    said = misfit(ResultType(kind=ResultKind.JSON), answer)

    assert said is not None and said.startswith(says.removesuffix("."))


def test_a_value_that_does_not_fit_the_schema_is_named_by_its_place() -> None:
    wanted = shaped(POINT)

    assert misfit(wanted, '{"x": 1.5, "tags": ["a"]}') is None
    said = misfit(wanted, '{"x": 1.5, "tags": ["a", 7]}')
    assert said == 'The answer does not fit its schema at /tags/1: it is not of type "string".'
    assert misfit(wanted, "{}") == 'The answer does not fit its schema: "x" is a required property.'


def test_with_rows_each_line_is_held_to_the_schema() -> None:
    wanted = shaped({"type": "integer"})

    assert misfit(wanted, "1\n2\n", rows=2) is None
    said = misfit(wanted, '1\n"2"\n', rows=2)
    assert said == 'Line 2 of the answer does not fit its schema: it is not of type "integer".'


def test_parts_of_a_schema_that_are_named_count() -> None:
    wanted = shaped({"$schema": DIALECT, "$defs": {"n": {"minimum": 3}}, "items": {"$ref": "#/$defs/n"}})

    assert misfit(wanted, "[3, 4]") is None
    assert (
        misfit(wanted, "[3, 2]")
        == "The answer does not fit its schema at /1: it is less than the minimum of 3."
    )


def test_a_lone_surrogate_is_no_accident() -> None:
    said = misfit(shaped({"items": {"type": "string"}}), '["\\ud800"]')

    assert said is None or said.startswith("The answer does not fit its schema")


# --- files


def test_each_pattern_must_have_its_file() -> None:
    wanted = ResultType(kind=ResultKind.FILES)
    outputs = ["model/*.bin", "**/*.csv"]

    assert misfit(wanted, "", outputs=outputs, files=["model/a.bin", "t/u/x.csv"]) is None
    assert misfit(wanted, "", outputs=outputs) == "The answer has no file 'model/*.bin': none came."
    said = misfit(wanted, "", outputs=outputs, files=["model/a.bin"])
    assert said == "The answer has no file '**/*.csv': only 'model/a.bin' and 0 more came."


def fits_letter_by_letter(part: str, pattern: str) -> bool:
    """What a pattern of one part means, said without regard to time."""
    if not pattern or not part:
        return not part and not pattern.strip("*")
    if pattern[0] == "*":
        return fits_letter_by_letter(part, pattern[1:]) or fits_letter_by_letter(part[1:], pattern)
    return pattern[0] in ("?", part[0]) and fits_letter_by_letter(part[1:], pattern[1:])


@given(part=st.text("ab.\n", min_size=1, max_size=8), pattern=st.text("ab.*?", min_size=1, max_size=7))
def test_a_pattern_means_what_its_letters_mean(part: str, pattern: str) -> None:
    if pattern != "**":
        assert fits(part, [pattern]) == fits_letter_by_letter(part, pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "/".join(["**", "*" + "a" * 150 + "b"] * 6),
        "/".join(["**", "*" + "a?" * 75 + "b"] * 6),
        "/".join(["**", "*a" * 70 + "b"] * 6),
        "/".join(["*a*b"] * 200),
    ],
    ids=["late", "any-letter", "stars", "parts"],
)
def test_names_and_patterns_that_hardly_fit_are_many_and_do_not_keep_anybody_busy(pattern: str) -> None:
    names = ["/".join(["a" * 195 + str(number)] * 5) for number in range(1000)]
    began = time.process_time()

    assert not any(fits(name, [pattern]) for name in names)

    assert time.process_time() - began < PATIENCE_S


def test_both_sides_read_patterns_with_the_same_lines() -> None:
    servers = (ROOT / "source_server/domain/patterns.py").read_bytes()
    hosts = (ROOT / "client_container/launcher/line/patterns.py").read_bytes()

    assert servers == hosts


# --- schemas that are refused when a task is made


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "no JSON Schema"),
        ({"pattern": "("}, "no JSON Schema"),
        ({"pattern": "(?=a)b"}, "no JSON Schema"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "no JSON Schema"),
        ({"$ref": "https://example.org/point.json"}, "must name a part of itself"),
        ({"$ref": "file:///etc/passwd"}, "must name a part of itself"),
        ({"$ref": "#/$defs/nothing"}, "names nothing in it"),
        ({"allOf": [True], "$ref": "#/allOf/\u00b2"}, "names nothing in it"),
        ({"$ref": "#"}, "goes in a circle at '#'"),
        ({"properties": {"next": {"$ref": "#"}}}, "goes in a circle"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "circle"),
        ({"$id": "https://example.org/"}, "'$id', which is not taken here"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be"),
        ({"properties": {"a": {"unevaluatedProperties": False}}}, "'unevaluatedProperties'"),
        ({"enum": list(range(2001))}, "more than 2000 values"),
        ({"const": "x" * MOST_SCHEMA}, "letters, more than"),
        ({"allOf": [{"pattern": "a+"}] * 10}, "more than 2000 values"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_a_sentence(schema: Any, says: str) -> None:
    with pytest.raises(BadSchema) as refused:
        require_schema(json.dumps(schema))

    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["[]", "3", "nonsense", '{"minimum": NaN}', '{"a":' * 3000 + "1" + "}" * 3000]
)
def test_what_is_no_schema_at_all_is_refused(text: str) -> None:
    with pytest.raises(BadSchema):
        require_schema(text)


# --- attacks


def doubling(levels: int) -> dict[str, Any]:
    """Each level is looked at twice by the one above."""
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**parts, f"a{levels}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    "schema",
    [
        doubling(100),
        {"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(500)}, "$ref": "#/$defs/a0"},
        {"allOf": [{"$ref": "#/allOf/1"}, {"$ref": "#/allOf/0"}]},
    ],
    ids=["doubling", "chain", "circle"],
)
def test_a_schema_that_would_take_for_ever_is_refused_at_once(schema: Any) -> None:
    began = time.monotonic()

    with pytest.raises(BadSchema):
        require_schema(json.dumps(schema))

    assert time.monotonic() - began < PATIENCE_S


MANY = "[" + "1," * 130_000 + "1]"


def escaped(levels: int) -> dict[str, Any]:
    """As `doubling`, but each level names the next one in other letters, under which something harmless stands, too."""
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/%61{n + 1}"}] * 2} for n in range(levels)}
    light = {f"%61{n + 1}": True for n in range(levels)}
    return {"$defs": {**parts, **light, f"a{levels}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


def rebased(levels: int) -> dict[str, Any]:
    """As `doubling`, but below an address of its own, from which its names count; at the top they are harmless."""
    light = {f"a{n}": True for n in range(levels + 1)}
    return {"$defs": {"b": {"$id": "http://b/", **doubling(levels)}, **light}, "$ref": "#/$defs/b/$defs/a0"}


@pytest.mark.parametrize("schema", [escaped(12), rebased(12)], ids=["escaped", "rebased"])
def test_a_reference_means_the_part_that_is_weighed(schema: Any) -> None:
    with pytest.raises(BadSchema) as refused:
        require_schema(json.dumps(schema))

    assert "'%'" in str(refused.value) or "'$id'" in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 250_000 + "b")),
        ({"pattern": "^([ab]*a[ab]{80}|[ab]*b[ab]{90})c"}, json.dumps("abba" * 60_000)),
        ({"pattern": "(x+x+)+y"}, json.dumps("x" * 250_000)),
        ({"patternProperties": {"^(a|aa)+$": {"type": "null"}}}, json.dumps({"a" * 200_000 + "b": 1})),
        ({"uniqueItems": True}, json.dumps(list(range(40_000)))),
        ({"contains": {"const": 1}, "maxContains": 3}, "[" + "0," * 120_000 + "0]"),
        ({"items": {"allOf": [{"type": "integer"}] * 500}}, MANY),
        ({"items": {"anyOf": [{"const": n} for n in range(400)]}}, MANY),
        ({"items": {"not": {"enum": [{"a": n} for n in range(2, 390)]}}}, "[" + '{"a":1},' * 4000 + "1]"),
        (doubling(6), "1"),
    ],
)
def test_no_answer_keeps_the_server_busy(schema: Any, answer: str) -> None:
    wanted = shaped(schema)
    require_schema(wanted.schema or "")
    began = time.monotonic()

    said = misfit(wanted, answer)

    assert time.monotonic() - began < PATIENCE_S
    assert said is None or (said.startswith("The answer") and len(said) <= 300)


def test_a_heavy_schema_meets_small_answers_only() -> None:
    heavy = shaped({"items": {"allOf": [{"type": "integer"}] * 500}})

    assert misfit(heavy, "[1, 2]") is None
    said = misfit(heavy, MANY)
    assert said is not None and "letters; one that is held to a schema of this size may have" in said


def test_objects_to_compare_with_weigh_more_than_plain_values() -> None:
    require_schema(json.dumps({"enum": list(range(1900))}))

    with pytest.raises(BadSchema, match="more than"):
        require_schema(json.dumps({"enum": [{"a": n} for n in range(900)]}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "$ref",
                        "allOf",
                        "properties",
                        "items",
                        "type",
                        "not",
                        "x",
                        "#",
                        "pattern",
                        "enum",
                        "$defs",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_whatever_a_schema_is_it_is_taken_or_refused(schema: Any) -> None:
    try:
        require_schema(json.dumps(schema))
    except BadSchema:
        return

    said = misfit(shaped(schema), "[1, {}]")
    assert said is None or said.startswith("The answer does not fit its schema")
