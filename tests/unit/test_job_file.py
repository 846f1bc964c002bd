"""`dockercomp.yml`: YAML with JSON's types within bounds, and what its fields become."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_server.domain.refusal import BadInput
from source_server.web.job_files.job_file import read_job_file, task_body
from source_server.web.job_files.rows import kind_of, lines_of
from source_server.web.job_files.yaml_text import MOST_BYTES, Place, read_yaml

IMAGE = "sha256:" + "1" * 64
REGISTRY = "docker.io/library/python@sha256:" + "2" * 64


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [2.5, -3, 1e3]", {"a": 1, "b": [2.5, -3, 1000.0]}),
        ("{d: true, e: null, f: ~, g: }", {"d": True, "e": None, "f": None, "g": None}),
        ("[no, on, yes, 12:30, 0x10, 010, 1_000, .nan, .inf, 2026-11-22, '1', \"true\"]",
         ["no", "on", "yes", "12:30", "0x10", "010", "1_000", ".nan", ".inf", "2026-11-22", "1", "true"]),
        ("a: |\n  two\n  lines\nb: >\n  one\n  line\n", {"a": "two\nlines\n", "b": "one line\n"}),
        ("a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}),
        ("a: !!str 1", {"a": "1"}),
        ("\ufeffa: é", {"a": "é"}),
    ],
)  # fmt: skip
def test_values_are_those_of_json_and_the_rest_is_text(text: str, value: Any) -> None:
    assert read_yaml(text) == value


SINGLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text("abc", min_size=1, max_size=3)


@given(
    st.recursive(
        SINGLE | st.text("ab \"'{[é", max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=20,
    )
)
def test_json_is_read_as_json(value: Any) -> None:
    assert read_yaml(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "Line"),
        ("a: 1\na: 2", "Line 2: 'a' stands here a second time"),
        ("a: !!python/object/apply:os.system [id]", "Line 1: the tag"),
        ("a: !!int x", "the tag"),
        ("a: *b", "Line 1: *b stands for nothing"),
        ("a: &a [*a]", "stands for nothing"),
        ("a: 1\n---\nb: 2\n", "Line 2: a second document"),
        ("? [a]\n: 1", "a name must be a text"),
        ("a: 1e999", "beyond the range"),
        ("a: " + "9" * 400, "too long"),
        ("[" * 50 + "]" * 50, "more than 20 levels deep"),
        ("[" * 100_000, "more than 20 levels deep"),
        ("- 1\n" * 30_000, "more than 20000 values"),
        (" " * (MOST_BYTES + 1), "bytes, more than"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("a: \x00", "does not allow"),
        ("a: \x01", "does not allow"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_line(text: str | bytes, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_yaml(text)

    assert says in str(caught.value)


def test_an_alias_bomb_ends_at_the_bound_and_takes_no_time() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    began = time.monotonic()

    with pytest.raises(BadInput, match="more than 20000 values"):
        read_yaml(bomb)

    assert time.monotonic() - began < 5


def test_places_are_where_the_values_stand() -> None:
    text = "é: 'a'\nb:\n  - c: d # e\n"
    places: list[Place] = []

    read_yaml(text, places)

    assert [(one.path, text[one.start : one.end]) for one in places] == [
        (("é",), "'a'"),
        (("b", 0, "c"), "d"),
    ]


# --- the job file


def test_the_smallest_file_is_one_run_of_one_command() -> None:
    file = read_job_file("dockercomp: 1\nmain: {action: [echo, hello]}\n")

    assert task_body(file, files={}, tree=None) == {"action": ["echo", "hello"]}
    assert list(lines_of(file, None)) == [b'{"run": 1}\n'] and kind_of(file) == "application/jsonl"


def test_every_field_becomes_its_field_of_the_task() -> None:
    file = read_job_file(
        f"""
dockercomp: 1
name: all of it
main:
  image: "{REGISTRY}"
  action: [python3, fit.py, 3, 1.5]
  env: {{LEVEL: 2, MODE: fast}}
  timeout: 1.5h
  cpus: 0.5
  memory: 1.5g
  disk: 100 MB
  requires: {{arch: x86_64, memory_mb: {{at_least: 512}}}}
  inputs: {{model.bin: data/model.bin, fixed: "sha256:{"3" * 64}"}}
  outputs: ["*.png"]
  result: {{type: json, schema: {{type: object}}}}
success: {{image: "{IMAGE}", action: [a], timeout: 30}}
failure: {{image: "{IMAGE}", action: [b], result: number}}
after: {{image: "{IMAGE}", action: [c], inputs: {{x: y/z}}}}
data: {{rows: [{{a: 1, b: text}}, {{a: 2, b: ~}}], rows_per_chunk: 2}}
validation: {{quorum: 2}}
limits: {{cpu_hours: 3}}
notify: [{{webhook: "https://example.org"}}]
priority: 5
max_failed: 1
after_tasks: [other]
"""
    )
    hashes = {"data/model.bin": "4" * 64, "y/z": "5" * 64}

    body = task_body(file, files=hashes, tree="6" * 64, task_id="mine", env={"GIT_COMMIT": "abc"})

    everywhere = {"inputs": {"tree.tar": "6" * 64}, "env": {"GIT_COMMIT": "abc"}}
    assert body == {
        "id": "mine",
        "name": "all of it",
        "image": REGISTRY,
        "action": ["python3", "fit.py", "3", "1.5"],
        "env": {"LEVEL": "2", "MODE": "fast", "GIT_COMMIT": "abc"},
        "timeout_s": 5400.0,
        "cpus": 0.5,
        "memory_mb": 1536,
        "disk_mb": 100,
        "requires": {"arch": "x86_64", "memory_mb": {"at_least": 512}},
        "inputs": {"tree.tar": "6" * 64, "model.bin": "4" * 64, "fixed": "3" * 64},
        "outputs": ["*.png"],
        "result": {"type": "json", "schema": {"type": "object"}},
        "success": {"image": IMAGE, "action": ["a"], "timeout_s": 30.0, **everywhere},
        "failure": {"image": IMAGE, "action": ["b"], "result": {"type": "number"}, **everywhere},
        "after": {"image": IMAGE, "action": ["c"], **everywhere, "inputs": {"tree.tar": "6" * 64, "x": "5" * 64}},
        "rows_per_chunk": 2,
        "validation": {"quorum": 2},
        "limits": {"cpu_hours": 3},
        "notify": [{"webhook": "https://example.org"}],
        "priority": 5,
        "max_failed": 1,
        "after_tasks": ["other"],
    }  # fmt: skip
    assert file.paths == ("data/model.bin", "y/z")
    assert list(lines_of(file, None)) == [b'{"a": 1, "b": "text"}\n', b'{"a": 2, "b": null}\n']


MATRIX = f"""
dockercomp: 1
main: {{action: [test]}}
matrix:
  - {{name: old, image: "{IMAGE}", labels: {{os: bookworm, release: 12}}}}
  - {{name: new, image: "{REGISTRY}", action: [other], env: {{A: 1}}}}
"""


def test_a_matrix_is_one_row_for_each_entry_in_the_image_of_that_entry() -> None:
    file = read_job_file(MATRIX)

    assert task_body(file, files={}, tree=None) == {
        "action": ["test"],
        "variant_field": "variant",
        "variants": [
            {"name": "old", "image": IMAGE, "labels": {"os": "bookworm", "release": "12"}},
            {"name": "new", "image": REGISTRY, "action": ["other"], "env": {"A": "1"}},
        ],
    }
    assert list(lines_of(file, None)) == [b'{"variant": "old"}\n', b'{"variant": "new"}\n']


def test_rows_run_in_every_entry_or_each_in_one_of_them() -> None:
    every = read_job_file(MATRIX + "data: {rows: [{a: 1}, {a: 2}]}\n")
    one = read_job_file(MATRIX + "data: {rows: [{a: 1}, {a: 2}]}\nrun_in: one\n")

    assert [json.loads(line) for line in lines_of(every, None)] == [
        {"variant": "old", "a": 1},
        {"variant": "new", "a": 1},
        {"variant": "old", "a": 2},
        {"variant": "new", "a": 2},
    ]
    assert [json.loads(line) for line in lines_of(one, None)] == [{"a": 1}, {"a": 2}]
    assert "variant_field" not in one.body


@pytest.mark.parametrize(
    ("name", "content"),
    [("r.csv", b"a,b\n1,x\n2,y\n"), ("r.jsonl", b'{"a": "1", "b": "x"}\n\n{"a": "2", "b": "y"}\n')],
)
def test_rows_of_a_file_run_in_every_entry(name: str, content: bytes) -> None:
    file = read_job_file(MATRIX + f"data: {{file: {name}}}\n")

    found = [json.loads(line) for line in lines_of(file, io.BytesIO(content))]

    assert kind_of(file) == "application/jsonl"
    assert [(one["variant"], one["a"], one["b"]) for one in found] == [
        ("old", "1", "x"),
        ("new", "1", "x"),
        ("old", "2", "y"),
        ("new", "2", "y"),
    ]


def test_numbers_of_any_size_in_a_file_pass_unharmed() -> None:
    file = read_job_file(MATRIX + "data: {file: r.jsonl}\n")
    big = b"123456789012345678901234567890.10"

    [first, _] = lines_of(file, io.BytesIO(b'{"a": ' + big + b"}\n"))

    assert first == b'{"variant": "old", "a": ' + big + b"}\n"


def test_a_file_without_a_matrix_is_passed_on_as_it_is() -> None:
    file = read_job_file("dockercomp: 1\nmain: {action: [x]}\ndata: {file: r.csv}\n")

    assert kind_of(file) == "text/csv"
    assert b"".join(lines_of(file, io.BytesIO(b"a\n1\n"))) == b"a\n1\n"


SMALL = "dockercomp: 1\nmain: {action: [x]}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must begin with 'dockercomp: 1'"),
        ("[]", "must begin with 'dockercomp: 1'"),
        ("main: {action: [x]}", "must begin with 'dockercomp: 1'"),
        ("dockercomp: 2\nmain: {action: [x]}", "must begin with 'dockercomp: 1'"),
        ("dockercomp: true\nmain: {action: [x]}", "must begin with 'dockercomp: 1'"),
        ("dockercomp: 1", "'main' is missing"),
        (SMALL + "mian: 1", "no field 'mian' in a job file. Do you mean 'main'?"),
        ("dockercomp: 1\nmian: {action: [x]}", "no field 'mian' in a job file. Do you mean 'main'?"),
        (
            "dockercomp: 1\nmain: {action: [x], timout: 5m}",
            "'main.timout' in a job file. Do you mean 'timeout'?",
        ),
        (SMALL + "zebra: 1", "no field 'zebra' in a job file."),
        ("dockercomp: 1\nmain: {action: echo}", "'main.action': it is a list, such as [a, b]."),
        ("dockercomp: 1\nmain: echo", "'main': it has fields of its own, such as {name: value}."),
        (SMALL + "tree: yes", "'tree': it is true or false."),
        (SMALL + "name: 3.11", "'name': it is a text; put it in quotes."),
        ("dockercomp: 1\nmain:\n\taction: [x]", "indent with spaces"),
        ("dockercomp: 1\nmain: {action: [x, no]}\nafter: {action: [[x]]}", "after.action must be a text"),
        (
            "dockercomp: 1\nmain: {action: [x], env: {A: true}}",
            "main.env.A must be a text; write it in quotes",
        ),
        ("dockercomp: 1\nmain: {action: [x], timeout: soon}", "main.timeout must be like 90s"),
        ("dockercomp: 1\nmain: {action: [x], timeout: true}", "main.timeout"),
        ("dockercomp: 1\nmain: {action: [x], memory: 512}", "main.memory must have its unit"),
        ("dockercomp: 1\nmain: {action: [x], memory: 5k}", "main.memory must be like 512m or 2g"),
        ("dockercomp: 1\nmain: {image: 'python:3.12'}", "is not pinned"),
        ("dockercomp: 1\nmain: {image: 'python:3.12'}", "dockercomp pin dockercomp.yml"),
        (SMALL + "matrix: []", "'matrix'"),
        (SMALL + "matrix: [{name: a, image: 'x:1'}]", "'x:1' of matrix entry a is not pinned"),
        (SMALL + "run_in: one", "needs a 'matrix' and 'data'"),
        (
            SMALL.replace("action: [x]", f"image: '{IMAGE}'") + f"matrix: [{{name: a, image: '{IMAGE}'}}]",
            "say one",
        ),
        (SMALL + "data: {}", "either 'rows' or 'file'"),
        (SMALL + "data: {rows: [{a: 1}], file: x.csv}", "either 'rows' or 'file'"),
        (SMALL + "data: {rows: []}", "'data.rows'"),
        (SMALL + "data: {rows: [1]}", "'data.rows.0'"),
        (SMALL + "data: {file: x.txt}", "must end in .csv or .jsonl"),
        (SMALL + "data: {file: /etc/passwd.csv}", "must be relative"),
        (SMALL + "data: {file: ../x.csv}", "must be relative"),
        ("dockercomp: 1\nmain: {action: [x], inputs: {a: ../../etc/passwd}}", "must be relative"),
        ("dockercomp: 1\nmain: {action: [x], inputs: {a: 'sha256:1'}}", "64 hexadecimal digits"),
        ("dockercomp: 1\nmain: {action: [x], inputs: {tree.tar: a}}", "which is the whole tree"),
        (MATRIX + "data: {rows: [{variant: x}]}", "'variant', which names its entry"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_that_names_the_place(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_job_file(text)

    assert str(caught.value).startswith("dockercomp.yml: ") and says in str(caught.value)


def test_a_column_variant_of_a_file_is_refused_where_it_would_be_overwritten() -> None:
    file = read_job_file(MATRIX + "data: {file: r.csv}\n")

    with pytest.raises(BadInput, match=r"Line 2 of r\.csv has the field 'variant'"):
        list(lines_of(file, io.BytesIO(b"variant\nx\n")))


def test_a_file_that_was_not_sent_along_is_named() -> None:
    file = read_job_file("dockercomp: 1\nmain: {action: [x], inputs: {a: b/c}}")

    with pytest.raises(BadInput, match="no file 'b/c'"):
        task_body(file, files={}, tree=None)


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_no_text_does_more_than_be_refused(text: str | bytes) -> None:
    try:
        read_job_file(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    except BadInput as error:
        assert str(error).startswith("dockercomp.yml: ")
