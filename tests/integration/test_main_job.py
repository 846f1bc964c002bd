"""The main job over a real MongoDB: from a CSV to a table of results."""

from __future__ import annotations

import csv
import io
from typing import Any


def table(scientist: Any, query: str = "") -> list[dict[str, str]]:
    answer = scientist.call("GET", f"/results.csv{query}")
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))


def test_a_csv_becomes_one_right_row_for_each_of_its_rows(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(25)
    one, other = volunteer(), volunteer()

    while True:
        chunks = [(who, chunk) for who in (one, other) for chunk in who.claim(4)]
        if not chunks:
            break
        for who, chunk in chunks:
            assert who.add(who.attempt(chunk, f"{chunk['n']}!\n")).status_code == 200

    rows = table(scientist)
    assert [(row["task"], row["n"], row["row"], row["a"], row["answer"]) for row in rows] == [
        (task, str(n), str(n), str(n), f"{n}!") for n in range(25)
    ]
    assert {row["state"] for row in rows} == {"done"} and {row["verdict"] for row in rows} == {"accepted"}
    assert {row["container"] for row in rows} == {one.id, other.id}
    report = scientist.ok("GET", f"/tasks/{task}")
    assert (report["state"], report["outcome"], report["chunks"]) == (
        "complete",
        "succeeded",
        {"total": 25, "done": 25},
    )


def test_many_rows_a_chunk_give_one_line_of_the_table_each(scientist: Any, volunteer: Any) -> None:
    scientist.running(10, rows_per_chunk=4)
    who = volunteer()

    chunks = who.claim(10)
    answers = {0: "0\n1\n2\n3\n", 1: "4\n5\n6\n7\n", 2: "8\n9"}
    who.add(*(who.attempt(chunk, answers[chunk["n"]]) for chunk in chunks))

    assert len(chunks) == 3
    assert [(row["row"], row["answer"]) for row in table(scientist)] == [(str(n), str(n)) for n in range(10)]


def test_a_wrong_number_of_lines_is_an_error_of_the_attempt(scientist: Any, volunteer: Any) -> None:
    task = scientist.running(4, rows_per_chunk=4)
    who = volunteer()
    (chunk,) = who.claim()

    assert who.add(who.attempt(chunk, "1\n2\n3\n")).get_json()["results"][0]["stored"]

    (error,) = scientist.ok("GET", f"/errors?task={task}")["errors"]
    assert error["stderr_tail"] == "The answer has 3 lines for 4 rows."
    assert scientist.ok("GET", f"/tasks/{task}")["chunks"] == {"total": 1, "delayed": 1}


def test_the_export_shows_every_row_at_any_time_and_goes_on_from_any_line(
    scientist: Any, volunteer: Any
) -> None:
    task = scientist.running(9, rows_per_chunk=3)
    who = volunteer()
    (chunk,) = who.claim()
    who.add(who.attempt(chunk, "x\ny\nz\n"))

    whole = scientist.call("GET", f"/results.csv?task={task}").get_data(as_text=True)

    lines = whole.splitlines(keepends=True)
    assert len(lines) == 10
    assert sorted(row["state"] for row in table(scientist)) == ["done"] * 3 + ["ready"] * 6
    for index, line in enumerate(lines[1:], start=1):
        cursor = ".".join(line.split(",")[:3])
        rest = scientist.call("GET", f"/results.csv?task={task}&after={cursor}").get_data(as_text=True)
        assert rest == "".join(lines[index + 1 :])


def test_an_input_field_with_a_name_of_ours_keeps_its_own_column(scientist: Any) -> None:
    scientist.running(body=b"n,state,answer\n5,sad,42\n")

    (row,) = table(scientist)

    assert (row["input.n"], row["input.state"], row["input.answer"], row["state"]) == (
        "5",
        "sad",
        "42",
        "ready",
    )


def test_json_rows_keep_big_numbers_nul_and_surrogates_to_the_letter(scientist: Any, volunteer: Any) -> None:
    text = '{"big": 123456789012345678901234567890, "nul": "\\u0000", "half": "\\ud800", "x": 1.10}'
    scientist.ok("POST", "/projects", {"name": "odd"})
    task = scientist.ok("POST", "/projects/odd/tasks", {"action": ["/bin/cat"]})["id"]
    scientist.ok("PUT", f"/tasks/{task}/chunks/u", data=text.encode(), content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")

    (chunk,) = volunteer().claim()

    assert chunk["input"] == text
    assert scientist.call("GET", f"/results.csv?task={task}").status_code == 200


def test_a_waiting_task_is_not_handed_out_and_a_paused_one_neither(scientist: Any, volunteer: Any) -> None:
    who = volunteer()
    task = scientist.task(3)

    waiting = who.claim()
    scientist.ok("POST", f"/tasks/{task}/start")
    scientist.ok("POST", f"/tasks/{task}/pause")
    paused = who.claim()
    scientist.ok("POST", f"/tasks/{task}/resume")

    assert (waiting, paused) == ([], [])
    assert len(who.claim(3)) == 3


def test_a_job_with_an_image_goes_only_to_containers_of_that_image(scientist: Any, volunteer: Any) -> None:
    image = "sha256:" + "a" * 64
    scientist.running(2, image=image)

    assert volunteer().claim() == []
    assert len(volunteer(image=image).claim(2)) == 2


def test_a_continued_export_has_the_columns_it_began_with_or_is_refused(scientist: Any) -> None:
    task = scientist.running(3)
    began = scientist.call("GET", "/results.csv")
    layout = began.headers["Dockercomp-Columns"]
    same = scientist.call("GET", f"/results.csv?after={task}.0.0&columns={layout}")
    scientist.running(body=b"another\n1\n")

    changed = scientist.call("GET", f"/results.csv?after={task}.0.0&columns={layout}")
    elsewhere = scientist.call("GET", "/results.csv?after=nosuchtask.0.0")

    assert same.status_code == 200 and len(same.get_data(as_text=True).splitlines()) == 2
    assert changed.status_code == 409 and elsewhere.status_code == 400


def test_columns_are_distinct_whatever_the_fields_are_called(scientist: Any) -> None:
    scientist.running(body=b"n,input.n,input.input.n\n1,2,3\n")

    (row,) = table(scientist)

    assert [row[name] for name in ("input.input.input.n", "input.n", "input.input.n")] == ["1", "2", "3"]
