"""A project's validator judges by all that there is: inputs that are files, and the files of inputs and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from people import Scientist, Volunteer
from product import until

pytestmark = pytest.mark.mongo

Volunteers = Callable[..., Volunteer]

CODE, ROW = b"the program's code\n", b"\x00\xff" * 1000
LARGE = {"a": "x" * 70_000, "name": "row.bin", "hash": hashlib.sha256(ROW).hexdigest()}


@pytest.fixture
def people(app: Any, new_key: Callable[[str], str]) -> Volunteers:
    """Makes volunteers, each of an account of its own."""
    return lambda **extra: Volunteer(app, new_key("volunteer"), **extra)


@pytest.fixture
def judge(people: Volunteers, stores: Any) -> Volunteer:
    """A container that the operator trusts."""
    made = people(resources={"disk_mb": 2000})
    stores.containers.set_trusted(made.id, True)
    return made


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def told(name: str, data: bytes, path: str | None = None) -> dict[str, Any]:
    """A file as everybody is told of it; to a validator that has it, with where it lies below /in."""
    entry = {"name": name, "sha256": sha(data), "bytes": len(data)}
    return entry if path is None else {**entry, "path": path}


def ticket(chunk: dict[str, Any]) -> dict[str, str]:
    return {"Dockercomp-Ticket": f"{chunk['id']} {chunk['run']} {chunk['token']} {chunk['ticket']}"}


def fetch(who: Volunteer, chunk: dict[str, Any], sha256: str) -> Any:
    return who.call("GET", f"/blobs/{sha256}", headers=ticket(chunk), buffered=True)


def put(scientist: Scientist, data: bytes) -> str:
    scientist.ok("PUT", f"/blobs/{sha(data)}", data=data)
    return sha(data)


def checked(scientist: Scientist, *, rule: dict[str, Any] | None = None, **validator: Any) -> str:
    """A running task of one large row, with files of the task and of the row, whose answers bring files."""
    code, _ = put(scientist, CODE), put(scientist, ROW)
    comparator = {"kind": "validator", "validator": {"action": ["/opt/same"], **validator}}
    validation = {"quorum": 2, **(rule or {}), "comparator": comparator}
    scientist.ok("POST", "/projects", {"name": "sums"})
    job = {"action": ["/opt/fit"], "inputs": {"code.py": code, "{name}": "{hash}"}, "outputs": ["out/**"]}
    task = scientist.ok("POST", "/projects/sums/tasks", {**job, "validation": validation})["id"]
    body = json.dumps(LARGE).encode() + b"\n"
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")
    return str(task)


def answer(who: Volunteer, task: str, text: str, **files: bytes) -> None:
    """Compute the task's chunk and answer with these files, of names below out/."""
    chunk = claimed(who, f"{task}.0")
    for data in files.values():
        brought = who.call("PUT", f"/blobs/{sha(data)}", data=data, headers=ticket(chunk))
        assert brought.status_code == 201, brought.text
    named = [told(f"out/{name}", data) for name, data in files.items()]
    added = who.add(who.attempt(chunk, text, files=named))
    assert added.status_code == 200, added.text


def asked(who: Volunteer, task: str) -> dict[str, Any]:
    return claimed(who, f"{task}-v.0")


def claimed(who: Volunteer, chunk: str) -> dict[str, Any]:
    """The chunk, claimed: a server may believe for two seconds that a task has none."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found.extend(one for one in who.claim() if one["id"] == chunk)
        return bool(found)

    until(there, seconds=30, what=f"{chunk} is handed out")
    return found[0]


def verdicts(raw: Any, task: str) -> dict[str, str]:
    return {one["container"]: one["verdict"] for one in raw.results.find({"task": task})}


def test_a_validator_is_told_of_every_file_and_answers_of_the_same_text_are_what_it_says_they_are(
    scientist: Scientist, people: Volunteers, judge: Volunteer, raw: Any
) -> None:
    task, (one, other, third) = checked(scientist), (people(), people(), people())
    answer(one, task, "done\n", model=b"one", log=b"words")
    answer(other, task, "done\n", model=b"two")

    first = asked(judge, task)
    said = json.loads(first["input"])
    judge.add(judge.attempt(first, '["a", "b"]\n'))
    between = raw.chunks.find_one({"_id": f"{task}.0"})["result"]
    answer(third, task, "fertig\n", model=b"two")
    judge.add(judge.attempt(asked(judge, task), '["a", "b", "b"]\n'))

    text = json.dumps(LARGE).encode()
    assert said["input"] is None and said["input_file"] == {"sha256": sha(text), "bytes": len(text)}
    assert said["files"] == [told("code.py", CODE), told("row.bin", ROW)]
    assert said["answers"] == ["done\n", "done\n"]
    assert said["answer_files"] == [
        [told("out/model", b"one"), told("out/log", b"words")],
        [told("out/model", b"two")],
    ]
    assert "files" not in first and fetch(judge, first, sha(b"one")).status_code == 404
    assert between is None
    assert verdicts(raw, task) == {one.id: "disagreed", other.id: "accepted", third.id: "agreed"}


def test_a_validator_that_asks_for_the_files_finds_them_below_in_and_nobody_else_reads_them(
    scientist: Scientist, people: Volunteers, judge: Volunteer, raw: Any
) -> None:
    task, (one, other) = checked(scientist, files=True), (people(), people())
    answer(one, task, "done\n", model=b"one", log=b"words")
    answer(other, task, "done\n", model=b"two")
    text = json.dumps(LARGE).encode()

    question = asked(judge, task)
    said = json.loads(question["input"])
    read = {file["name"]: fetch(judge, question, file["sha256"]).data for file in question["files"]}

    assert read == {
        "input/code.py": CODE,
        "input/row.bin": ROW,
        "input/chunk.json": text,
        "answers/0/out/model": b"one",
        "answers/0/out/log": b"words",
        "answers/1/out/model": b"two",
    }
    assert said["input_file"]["path"] == "input/chunk.json"
    assert said["files"] == [
        told("code.py", CODE, "input/code.py"),
        told("row.bin", ROW, "input/row.bin"),
    ]
    assert said["answer_files"][1] == [told("out/model", b"two", "answers/1/out/model")]
    assert fetch(one, question, sha(b"two")).status_code == 403
    judge.add(judge.attempt(question, "[0, 0]\n"))
    assert verdicts(raw, task) == {one.id: "accepted", other.id: "agreed"}


def test_a_validator_that_is_asked_again_gets_the_files_of_the_answers_that_came_since(
    scientist: Scientist, people: Volunteers, judge: Volunteer, raw: Any
) -> None:
    task, crowd = checked(scientist, files=True), [people() for _ in range(3)]
    answer(crowd[0], task, "1\n", model=b"one")
    answer(crowd[1], task, "1\n", model=b"two")
    judge.add(judge.attempt(asked(judge, task), "[0, 1]\n"))
    answer(crowd[2], task, "1\n", model=b"three")

    again = asked(judge, task)

    assert [one["name"] for one in again["files"]][3:] == [f"answers/{n}/out/model" for n in range(3)]
    assert fetch(judge, again, sha(b"three")).data == b"three"


def test_an_answer_with_larger_files_than_its_part_is_worth_nothing_whatever_the_validator_says(
    scientist: Scientist, people: Volunteers, judge: Volunteer, raw: Any
) -> None:
    rule = {"replicas": 3}
    # Half of the 32 MiB is for files, and a third of that for each answer.
    task = checked(scientist, rule=rule, files=True, disk_mb=32)
    one, other, third = people(), people(), people()
    answer(one, task, "1\n", model=b"x" * 6_000_000)
    answer(other, task, "1\n", model=b"one")
    answer(third, task, "1\n", model=b"one")

    question = asked(judge, task)
    said = json.loads(question["input"])
    judge.add(judge.attempt(question, "[0, 0, 0]\n"))

    assert said["left_out"] == [0] and said["answers"][0] is None and said["answer_files"][0] is None
    assert len(question["files"]) == 3 + 2
    assert verdicts(raw, task) == {one.id: "disagreed", other.id: "accepted", third.id: "agreed"}


def test_a_question_with_files_waits_for_a_client_that_fetches_files(
    scientist: Scientist, people: Volunteers, judge: Volunteer, stores: Any
) -> None:
    task = checked(scientist, files=True, disk_mb=64)
    old = people(features=["limits"], resources={"disk_mb": 2000})
    stores.containers.set_trusted(old.id, True)
    for who in (people(), people()):
        answer(who, task, "1\n", model=b"one")

    assert old.claim() == []
    assert asked(judge, task)["files"]


def test_a_validators_task_that_its_maker_did_not_live_to_make_runs_the_whole_command(
    scientist: Scientist, people: Volunteers, judge: Volunteer, raw: Any
) -> None:
    task = checked(scientist, files=True)
    raw.tasks.delete_one({"_id": f"{task}-v"})
    for who in (people(), people()):
        answer(who, task, "1\n", model=b"one")

    token = "11111111-2222-3333-4444-555555555555"
    jobs = judge.ok("POST", "/next", {"token": token, "want": 1})["jobs"]

    assert jobs[f"{task}-v/main"]["action"] == ["/opt/same"]


def test_what_a_validator_may_be_told_is_shown_and_a_disk_without_files_is_refused(
    scientist: Scientist,
) -> None:
    task = checked(scientist, files=True)
    shown = scientist.ok("GET", f"/tasks/{task}")["validation"]["comparator"]
    program = {"action": ["/opt/same"], "disk_mb": 64}
    rule = {"quorum": 2, "comparator": {"kind": "validator", "validator": program}}

    refused = scientist.call("POST", "/projects/sums/tasks", {"action": ["x"], "validation": rule})

    assert shown["files"] is True and shown["validator"] == ["/opt/same"]
    assert refused.status_code == 400 and "goes with 'files'" in refused.get_json()["error"]
