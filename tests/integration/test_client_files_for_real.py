"""The real client and the real server, and files between them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import clients_of, until
from people import Scientist
from werkzeug.serving import WSGIRequestHandler, make_server

pytestmark = pytest.mark.mongo


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass


@pytest.fixture
def client(app: Any, new_key: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    running = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    with clients_of(running, tmp_path, new_key("volunteer")) as start:
        yield start
    running.shutdown()


def put(who: Scientist, data: bytes) -> str:
    name = hashlib.sha256(data).hexdigest()
    assert who.call("PUT", f"/blobs/{name}", data=data).status_code == 201
    return name


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script.replace("{", "{{").replace("}", "}}")]


def answers(who: Scientist, task: str) -> list[dict[str, str]]:
    """The results' lines, once all are there."""

    def over() -> bool:
        counts = who.ok("GET", f"/tasks/{task}")["chunks"]
        return (
            bool(counts["total"]) and counts.get("done", 0) + counts.get("quarantined", 0) == counts["total"]
        )

    until(over, within_s=45)
    text = who.call("GET", f"/results.csv?task={task}", buffered=True).text
    before = csv.field_size_limit(2**20)
    try:
        return list(csv.DictReader(io.StringIO(text)))
    finally:
        csv.field_size_limit(before)


def test_files_go_in_and_out_and_are_the_same_at_the_other_end(scientist: Scientist, client: Any) -> None:
    data, code = random.Random(5).randbytes(20_000_000), b"some code"
    task = scientist.running(
        inputs={"code/x": put(scientist, code), "{name}.bin": "{hash}"},
        outputs=["copy/*", "**/note"],
        action=shell(
            'cd "$DOCKERCOMP_OUT"; mkdir copy; cp "$DOCKERCOMP_IN"/*.bin copy; cat "$DOCKERCOMP_IN/code/x" > note; '
            "echo waste > waste; cat note"
        ),
        body=f"name,hash\none,{put(scientist, data)}\ntwo,{put(scientist, b'second')}\n".encode(),
    )

    client()
    rows = answers(scientist, task)

    assert [(row["state"], row["answer"]) for row in rows] == [("done", "some code")] * 2
    files = scientist.ok("GET", f"/tasks/{task}/files")
    found = {(one["n"], one["name"]): one for one in files["files"]}
    assert found.keys() == {(0, "copy/one.bin"), (0, "note"), (1, "copy/two.bin"), (1, "note")}
    name = found[0, "copy/one.bin"]["sha256"]
    assert scientist.call("GET", f"/blobs/{name}", buffered=True).data == data


def test_an_input_that_is_too_large_for_a_message_reaches_the_program(
    scientist: Scientist, client: Any
) -> None:
    long = "y" * 300_000
    body = json.dumps({"x": long, "a": 1}).encode()
    scientist.ok("POST", "/projects", {"name": "sums"})
    action = ["/bin/sh", "-c", "wc -c; echo $0", "{a}"]
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": action})["id"]
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")

    client()
    [row] = answers(scientist, task)

    size, first = row["answer"].split()
    assert int(size) >= 300_000 and first == "1"


def test_rows_that_are_too_large_for_a_message_each_have_their_line(
    scientist: Scientist, client: Any
) -> None:
    body = b"".join(json.dumps({"x": "y" * 5_000, "a": n}).encode() + b"\n" for n in range(60))
    scientist.ok("POST", "/projects", {"name": "sums"})
    action = shell("tr ']' '\\n' | grep -o '\"a\": *[0-9]*' | tr -dc '0-9\\n'")
    made = {"action": action, "rows_per_chunk": 60}
    task = scientist.ok("POST", "/projects/sums/tasks", made)["id"]
    scientist.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="application/jsonl")
    scientist.ok("POST", f"/tasks/{task}/start")

    client()

    assert [row["answer"] for row in answers(scientist, task)] == [str(n) for n in range(60)]
