"""Files on their way through a task: named by the job or by its rows, read with a ticket, brought with the answer."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from people import Scientist, Volunteer

pytestmark = pytest.mark.mongo

CONTRACT = Path(__file__).parents[1] / "contract" / "v1"
CODE, DATA = b"the program's code\n" * 10, b"\x00\xff" * 700_000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ticket(chunk: dict[str, Any], **other: Any) -> dict[str, str]:
    """The header that shows a chunk's ticket."""
    shown = {**chunk, **other}
    return {"Dockercomp-Ticket": f"{shown['id']} {shown['run']} {shown['token']} {shown['ticket']}"}


def fetch(who: Volunteer, chunk: dict[str, Any], data: bytes, method: str = "GET", **other: Any) -> Any:
    return who.call(method, f"/blobs/{sha(data)}", headers=ticket(chunk, **other), buffered=True)


def bring(who: Volunteer, chunk: dict[str, Any], data: bytes, **headers: str) -> Any:
    return who.call("PUT", f"/blobs/{sha(data)}", data=data, headers={**ticket(chunk), **headers})


def put(who: Scientist, data: bytes) -> str:
    assert who.call("PUT", f"/blobs/{sha(data)}", data=data).status_code == 201
    return sha(data)


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "sha256": sha(data), "bytes": len(data)}


def claimed(who: Volunteer, want: int = 10) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a claim got: chunks and jobs."""
    token = "11111111-2222-3333-4444-555555555555"
    said = who.ok("POST", "/next", {"token": token, "want": want})
    return [{**chunk, "token": token} for chunk in said["chunks"]], said["jobs"]


def keeping(scientist: Scientist, **job: Any) -> str:
    """A task of one row that runs and keeps what lies below out/."""
    return scientist.running(1, outputs=["*.bin", "out/**"], **job)


def test_files_of_the_job_and_of_each_row_reach_who_computes_them_and_nobody_else(
    scientist: Scientist, volunteer: Any, new_key: Any
) -> None:
    code, one, two, other = (put(scientist, data) for data in (CODE, DATA, b"two", b"other"))
    inputs = {"code.py": code, "{name}.bin": "{hash}"}
    body = f"name,hash\nfirst,{one}\ndir/second,{two}\n".encode()
    task = scientist.running(inputs=inputs, body=body)
    who, idle = volunteer(), volunteer(account_key=new_key("volunteer"))

    chunks, jobs = claimed(who)
    chunks.sort(key=lambda chunk: chunk["n"])
    first, second = chunks

    assert jobs[f"{task}/main"]["files"] == [file("code.py", CODE)]
    assert [chunk["files"] for chunk in chunks] == [
        [file("first.bin", DATA)],
        [file("dir/second.bin", b"two")],
    ]
    assert [fetch(who, first, data).data for data in (CODE, DATA)] == [CODE, DATA]
    ranged = who.call("GET", f"/blobs/{one}", headers={**ticket(first), "Range": "bytes=-7"}, buffered=True)
    assert ranged.status_code == 206 and ranged.data == DATA[-7:]
    # Not another chunk's, not what no chunk names, not with a ticket that was given to somebody else or made up.
    assert [fetch(who, first, data).status_code for data in (b"two", b"other")] == [404, 404]
    assert fetch(who, second, b"two").data == b"two" and other
    assert fetch(idle, first, DATA).status_code == 403
    assert fetch(who, first, DATA, ticket="A" * 43).status_code == 403
    assert fetch(who, first, DATA, id=second["id"]).status_code == 403
    assert fetch(who, first, DATA, run=1).status_code == 403
    assert fetch(who, first, DATA, id=f"{task}.99").status_code == 403
    assert who.call("GET", f"/blobs/{one}", headers={"Dockercomp-Ticket": "x y"}).status_code == 400


@pytest.mark.parametrize(
    ("inputs", "rows", "says"),
    [
        ({"../x": "H"}, None, "relative"),
        ({"/etc/x": "H"}, None, "relative"),
        ({"a\\b": "H"}, None, "relative"),
        ({"a//b": "H"}, None, "relative"),
        ({"chunk.json": "H"}, None, "chunk.json"),
        ({"Chunk.JSON/x": "H"}, None, "chunk.json"),
        ({"a": "H", "A": "H"}, None, "case"),
        ({"a": "H", "a/b": "H"}, None, "lies in the other"),
        ({"u\u0308": "H"}, None, "normalised"),
        ({"a": "0" * 64}, None, "upload it first"),
        ({"a": "latest"}, None, "SHA-256"),
        ({"{f}": "H"}, '{"f": "ok"}\n{"f": "../x"}\n', "Line 2"),
        ({"{f}": "H"}, '{"f": "a\\u0000b"}\n', "Line 1"),
        ({"{f}": "H", "b": "H"}, '{"f": "a"}\n{"f": "B"}\n', "Line 2"),
        ({"{f}": "H", "{g}": "H"}, '{"f": "a", "g": "a/b"}\n', "Line 1"),
        ({"a": "{f}"}, '{"f": "H"}\n{"f": "%s"}\n' % ("1" * 64), "Line 2"),
        ({"a": "{f}"}, '{"f": "H"}\n{"f": 7}\n', "Line 2"),
        ({"a": "{f}"}, '{"g": "H"}\n', "Line 1"),
    ],
)
def test_files_that_cannot_be_are_refused_by_name_or_by_line(
    scientist: Scientist, inputs: dict[str, str], rows: str | None, says: str
) -> None:
    known = put(scientist, CODE)
    named = {name: text.replace("H", known) for name, text in inputs.items()}
    scientist.ok("POST", "/projects", {"name": "sums"})

    made = scientist.call("POST", "/projects/sums/tasks", {"action": ["/bin/cat"], "inputs": named})
    if rows is not None:
        assert made.status_code == 201
        path, body = f"/tasks/{made.get_json()['id']}/chunks/one", rows.replace("H", known)
        made = scientist.call("PUT", path, data=body.encode(), content_type="application/jsonl")

    assert made.status_code == 400 and says in made.get_json()["error"], made.text


def test_another_accounts_blob_is_no_input(scientist: Scientist, app: Any, new_key: Any) -> None:
    other = Scientist(app, new_key("scientist"))
    known = put(scientist, CODE)
    other.ok("POST", "/projects", {"name": "theirs"})

    refused = other.call("POST", "/projects/theirs/tasks", {"action": ["x"], "inputs": {"a": known}})

    assert refused.status_code == 400 and "none of yours" in refused.get_json()["error"]


def test_rows_with_files_of_their_own_stand_alone_in_their_chunk(scientist: Scientist) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    job = {"action": ["x"], "inputs": {"{f}": "0" * 64}, "rows_per_chunk": 2}

    assert scientist.call("POST", "/projects/sums/tasks", job).status_code == 400


def test_a_large_row_travels_as_a_file_and_comes_back_in_the_table(
    scientist: Scientist, volunteer: Any, raw: Any
) -> None:
    rows = [{"a": "x" * size, "b": 'ü"\n'} for size in (10, 70_000, 900_000)]
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")
    who = volunteer()

    chunks, _ = claimed(who)
    chunks.sort(key=lambda chunk: chunk["n"])
    texts = [chunk["input"] for chunk in chunks]
    files = [chunk.get("input_file") for chunk in chunks]
    got = [
        who.call("GET", f"/blobs/{one['sha256']}", headers=ticket(chunk), buffered=True).data
        for chunk, one in zip(chunks, files, strict=True)
        if one
    ]
    table = scientist.call("GET", f"/results.csv?task={task}", buffered=True).text

    assert texts == [json.dumps(rows[0]), None, None] and files[0] is None
    assert [json.loads(text) for text in got] == rows[1:]
    assert [one["bytes"] for one in files[1:]] == [len(text) for text in got]
    before = csv.field_size_limit(2_000_000)  # one for the whole process
    try:
        shown = [row["a"] for row in csv.DictReader(io.StringIO(table, newline=""))]
    finally:
        csv.field_size_limit(before)
    assert shown == [row["a"] for row in rows]


def test_many_rows_in_a_chunk_may_come_to_more_than_a_row(scientist: Scientist, volunteer: Any) -> None:
    body = "".join(json.dumps({"n": n, "x": "y" * 1000}) + "\n" for n in range(300)).encode()
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["x"], "rows_per_chunk": 300})["id"]
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")

    [chunk], _ = claimed(volunteer())

    assert chunk["input"] is None and chunk["input_file"]["bytes"] > 300_000


def test_an_answer_is_taken_once_its_files_are_here(scientist: Scientist, volunteer: Any, raw: Any) -> None:
    task, who = keeping(scientist), volunteer()
    [chunk], jobs = claimed(who)
    files = [file("a.bin", DATA), file("out/deep/b.txt", b"text")]
    answer = who.attempt(chunk, files=files)

    early = who.add(answer)
    half = (
        bring(who, chunk, DATA[:9]),
        who.call(
            "PUT",
            f"/blobs/{sha(DATA)}",
            data=DATA[:1000],
            headers={**ticket(chunk), "Content-Range": f"bytes 0-999/{len(DATA)}"},
        ),
    )
    head = fetch(who, chunk, DATA, "HEAD")
    still = who.add(answer)
    rest = who.call(
        "PUT",
        f"/blobs/{sha(DATA)}",
        data=DATA[1000:],
        headers={**ticket(chunk), "Content-Range": f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"},
    )
    one_missing, _ = who.add(answer), bring(who, chunk, b"text")
    stored, again = who.add(answer), who.add(answer)
    listed = scientist.ok("GET", f"/tasks/{task}/files")

    assert jobs[f"{task}/main"]["outputs"] == ["*.bin", "out/**"]
    assert early.status_code == 409 and early.get_json()["results"][0]["missing"] == [sha(DATA), sha(b"text")]
    assert [one.status_code for one in half] == [201, 202] and still.status_code == 409
    assert head.status_code == 404 and head.headers["Dockercomp-Received"] == "1000"
    assert rest.status_code == 201 and one_missing.get_json()["results"][0]["missing"] == [sha(b"text")]
    assert (stored.status_code, again.status_code) == (200, 200)
    assert raw.results.find_one({})["files"] == files and raw.results.count_documents({}) == 1
    assert listed == {"files": [{"n": 0, **one} for one in files], "next": None}
    assert scientist.call("GET", f"/blobs/{sha(DATA)}", buffered=True).data == DATA
    assert "a.bin" in scientist.call("GET", f"/results.csv?task={task}", buffered=True).text


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.txt"], "keeps no file"),
        (["out/../../etc/passwd"], "relative"),
        (["/a.bin"], "relative"),
        (["a.bin", "A.bin"], "case"),
        (["out/x", "out/x/y"], "lies in the other"),
        (["out/\u0000"], "relative"),
        (["out\\x.bin"], "relative"),
    ],
)
def test_files_that_the_job_does_not_keep_make_the_answer_a_failure(
    scientist: Scientist, volunteer: Any, raw: Any, files: list[str], says: str
) -> None:
    keeping(scientist)
    who = volunteer()
    [chunk], _ = claimed(who)

    taken = who.add(who.attempt(chunk, files=[file(name, b"x") for name in files]))

    assert taken.status_code == 200 and raw.results.count_documents({}) == 0
    assert says in raw.errors.find_one({})["stderr_tail"]


def test_knowing_a_hash_does_not_make_its_content_an_answer(
    scientist: Scientist, volunteer: Any, new_key: Any
) -> None:
    put(scientist, b"secret")
    keeping(scientist, validation={"quorum": 2})
    who, other = volunteer(), volunteer(account_key=new_key("volunteer"))
    [mine], [theirs] = claimed(who)[0], claimed(other)[0]
    assert bring(other, theirs, b"found").status_code == 201

    guesses = [who.add(who.attempt(mine, files=[file("a.bin", data)])) for data in (b"secret", b"found")]
    brought = bring(who, mine, b"found"), who.add(who.attempt(mine, files=[file("a.bin", b"found")]))

    assert [one.status_code for one in guesses] == [409, 409]
    assert [one.status_code for one in brought] == [201, 200]


def test_answers_agree_only_with_the_same_files(scientist: Scientist, volunteer: Any, new_key: Any) -> None:
    rules = [
        {"quorum": 2, "most": 2},
        {"quorum": 2, "most": 2, "comparator": {"kind": "json", "relative": 0.1}},
    ]
    people = [volunteer(account_key=new_key("volunteer")) for _ in range(2)]
    states = []
    for rule in rules:
        for datas in ((b"one", b"one"), (b"one", b"two")):
            task = keeping(scientist, validation=rule)
            for who, data, text in zip(people, datas, ("1.00\n", "1.00\n"), strict=True):
                [chunk] = who.claim(1)
                assert bring(who, chunk, data).status_code == 201
                assert who.add(who.attempt(chunk, text, files=[file("a.bin", data)])).status_code == 200
            states.append(scientist.ok("GET", f"/tasks/{task}")["chunks"])

    assert [("done" in one, "quarantined" in one) for one in states] == [(True, False), (False, True)] * 2


def test_uploads_of_a_container_are_bounded_by_the_jobs_disk_and_the_owners_quota(
    scientist: Scientist, volunteer: Any, raw: Any
) -> None:
    keeping(scientist, disk_mb=1)
    who = volunteer(resources={"disk_mb": 100})
    [chunk], _ = claimed(who)
    datas = [bytes([letter]) * 1_000_000 for letter in range(3)]

    statuses = [bring(who, chunk, data).status_code for data in datas]
    again = bring(who, chunk, datas[0]).status_code

    assert statuses == [201, 201, 413] and again == 201
    assert raw.blobs.count_documents({}) == 2


def test_a_job_that_keeps_no_files_takes_none(scientist: Scientist, volunteer: Any) -> None:
    scientist.running(1)
    who = volunteer()
    [chunk], _ = claimed(who)

    assert bring(who, chunk, b"x").status_code == 403
    assert who.call("PUT", f"/blobs/{sha(b'x')}", data=b"x").status_code == 401


def test_rows_that_are_added_later_bring_files_too(scientist: Scientist, volunteer: Any) -> None:
    known = put(scientist, DATA)
    scientist.ok("POST", "/projects", {"name": "sums"})
    job = {"action": ["x"], "inputs": {"{f}": "{h}"}, "open_ended": True}
    task = scientist.ok("POST", "/projects/sums/tasks", job)["id"]
    scientist.ok("POST", f"/tasks/{task}/start")

    bad = scientist.call("POST", f"/tasks/{task}/chunks", {"rows": [{"f": "a", "h": "0" * 64}]})
    good = scientist.call("POST", f"/tasks/{task}/chunks", {"rows": [{"f": "a", "h": known}]})
    [chunk], _ = claimed(volunteer())

    assert bad.status_code == 400 and good.status_code < 300, good.text
    assert chunk["files"] == [file("a", DATA)]


def test_the_server_answers_as_the_golden_messages_say(scientist: Scientist, volunteer: Any) -> None:
    keeping(scientist)
    who = volunteer()
    [chunk], _ = claimed(who)

    def answer(name: str) -> tuple[dict[str, Any], Any]:
        golden = json.loads((CONTRACT / f"{name}.json").read_text())
        headers = {**golden["request_headers"], **ticket(chunk)}
        body = base64.b64decode(golden["request_base64"])
        return golden, who.call(golden["method"], golden["path"], data=body, headers=headers, buffered=True)

    for name in ("blob_put_part", "blob_put_elsewhere", "blob_head", "blob_put_last", "blob_get"):
        golden, got = answer(name)
        assert got.status_code == golden["status"], name
        for header, value in golden.get("headers", {}).items():
            assert got.headers[header] == value, name
        if golden.get("response"):
            said = got.get_json()
            assert said.pop("error", None) or "error" not in golden["response"], name
            golden["response"].pop("error", None)
            assert said == golden["response"], name
        if "response_base64" in golden:
            assert got.data == base64.b64decode(golden["response_base64"])

    missing = json.loads((CONTRACT / "add_files_first.json").read_text())
    files = [{**one, "name": "a.bin"} for one in missing["request"]["results"][0]["files"][:1]]
    refused = who.add(who.attempt(chunk, files=files))
    assert refused.status_code == missing["status"]
    assert refused.get_json()["results"][0].keys() == {*missing["response"]["results"][0], "missing"}
