"""`dockercomp submit`, `task` and `watch`, against the whole product."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product, running, until

CAT = "/bin/cat"
ECHO = "/bin/echo"
SHAPE = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

pytestmark = pytest.mark.mongo


@pytest.fixture(scope="module")
def product(mongo_uri: str) -> Iterator[Product]:
    allowed = json.dumps([[CAT], [ECHO]])
    with running("--beat-seconds", "1", "--processes", "2", "--allow", allowed) as started:
        until(lambda: "2 live" in started.run("dockercomp", "status"), seconds=60, what="two clients")
        yield started


def data(product: Product, rows: int = 3) -> str:
    path = product.home / f"rows{rows}.csv"
    path.write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(rows)))
    return str(path)


def submit(product: Product, *options: str, command: tuple[str, ...] = (CAT,), rows: int = 3) -> str:
    argv = ("dockercomp", "submit", data(product, rows), "--project", "sums", *options, "--", *command)
    return product.run(*argv).strip()


def complaint(product: Product, *argv: str) -> str:
    done = subprocess.run(argv, env=product.env, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_task_with_everything_is_watched_to_the_end_of_its_reactions(product: Product) -> None:
    shape = product.home / "shape.json"
    shape.write_text(json.dumps(SHAPE))
    after = product.home / "after.json"
    after.write_text(json.dumps({"action": [ECHO, "after", "{outcome}"], "timeout_s": 20}))
    task = submit(
        product,
        *("--id", "run-1", "--cpus", "0.5", "--memory", "64", "--result", f"json:{shape}"),
        *("--success", f"{ECHO} well done", "--after", str(after), "--max-failed", "1"),
        *("--limit", "cpu_hours=2", "--limit", "then=end", "--timeout", "30"),
    )
    assert task == "run-1"
    product.run("dockercomp", "assign", "--project", "sums")

    told = product.run("dockercomp", "watch", task).splitlines()

    assert told[0] == "succeeded: 3 of 3 chunks have a result."
    said = [line.split() for line in told[1:]]
    assert ["answered", "well", "done"] in said and ["answered", "after", "succeeded"] in said
    shown = product.run("dockercomp", "task", "show", task)
    for words in (
        "complete (succeeded)",
        "main       /bin/cat",
        "timeout_s 30, cpus 0.5, memory_mb 64",
        "answers: json of a declared shape",
        "success    /bin/echo well done",
        "cpu_hours 2",
        "after      complete (succeeded), 1 attempt",
    ):
        assert words in shown, shown
    listed = product.run("dockercomp", "task", "list", "--project", "sums", "--state", "complete")
    assert "run-1" in listed and "complete (succeeded)" in listed
    tried = product.run("dockercomp", "task", "attempts", task)
    assert tried.count("  ok, exit 0  (accepted)") == 3 and '"a":' in tried


def test_the_same_id_again_is_the_same_task_and_does_it_no_harm(product: Product) -> None:
    first = submit(product, "--id", "again-1")

    assert submit(product, "--id", "again-1") == first
    other = complaint(
        product, "dockercomp", "submit", data(product), "--project", "sums", "--id", "again-1", "--", ECHO
    )
    assert "Error:" in other
    assert "waiting" in product.run("dockercomp", "task", "show", first)


def test_an_answer_of_the_wrong_type_is_shown_with_its_attempt(product: Product) -> None:
    task = submit(product, "--result", "number", command=(ECHO, "none"), rows=1)
    product.run("dockercomp", "assign", "--project", "sums")

    until(
        lambda: "is not one number" in product.run("dockercomp", "task", "attempts", task, "--most", "3"),
        seconds=60,
        what="a failed attempt",
    )

    shown = product.run("dockercomp", "task", "attempts", "--chunk", f"{task}.0", "--most", "1")
    assert "failed, exit 0" in shown and "The answer is not one number: it is 'none'." in shown


def test_a_task_is_paused_resumed_cancelled_and_deleted(product: Product) -> None:
    task = submit(product)

    product.run("dockercomp", "task", "pause", task)
    assert "waiting (paused)" in product.run("dockercomp", "task", "show", task)
    product.run("dockercomp", "task", "resume", task)
    product.run("dockercomp", "task", "cancel", task)
    until(
        lambda: "complete (cancelled)" in product.run("dockercomp", "task", "show", task),
        seconds=60,
        what="the end of a cancelled task",
    )
    product.run("dockercomp", "task", "delete", task, "--yes")

    until(
        lambda: task not in product.run("dockercomp", "task", "list"), seconds=60, what="a deleted task gone"
    )
    assert f"There is no task {task}" in complaint(product, "dockercomp", "task", "show", task)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--success", "{"), "it is not JSON"),
        (("--success", "[1].json"), "cannot be read"),
        (("--after", '{"actoin": ["/bin/echo"]}'), "a job has no field 'actoin'"),
        (("--after", '{"timeout_s": 3}'), "a job needs an 'action'"),
        (("--failure", "echo 'open"), "is no command line"),
        (("--result", "picture"), "must be text, number, json, files, or json:FILE"),
        (("--result", "json:/no/such/file"), "cannot be read"),
        (("--limit", "cpu=3"), "must be one of cpu_hours, until, stop_when, then"),
        (("--limit", "cpu_hours=many"), "takes a number"),
        (("--image", "Not An Image"), "is no image's name"),
        (("--id", "a--b"), "must neither contain '--'"),
    ],
)
def test_options_that_cannot_be_meant_are_told_in_a_sentence(
    product: Product, options: tuple[str, ...], says: str
) -> None:
    said = complaint(product, "dockercomp", "submit", data(product), "--project", "sums", *options, "--", CAT)

    assert says in " ".join(said.split()), said


def test_whom_to_tell_and_when_enough_is_enough(product: Product) -> None:
    task = submit(product, "--limit", "stop_when=2", "--notify", "ada@example.org", "--after-task", "run-0")

    record = record_of(product, task)

    assert record["limits"]["stop_when"] == {"answers": 2}
    assert record["notify"] == [{"email": "ada@example.org"}]


def record_of(product: Product, task: str) -> dict:  # type: ignore[type-arg]
    from dockercomp.api import Server
    from dockercomp.config import read_key

    server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
    return server.task(task)


def on_a_terminal(product: Product, *argv: str) -> str:
    """What the command sends to a terminal, escape sequences and all."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(argv, env=product.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while piece := os.read(ours, 4096):
            seen += piece
    os.close(ours)
    assert done.wait() == 0, seen
    return seen.decode()


def test_what_a_program_prints_does_not_reach_the_terminal_as_commands(product: Product) -> None:
    task = submit(product, command=(ECHO, "\x1b]0;owned\x07\x1b[2Jinnocent\u202e"), rows=1)
    product.run("dockercomp", "assign", "--project", "sums")
    until(
        lambda: "innocent" in product.run("dockercomp", "task", "attempts", task),
        seconds=60,
        what="its attempt",
    )

    shown = on_a_terminal(product, "dockercomp", "task", "attempts", task)

    assert "answered \\x1b]0;owned\\x07\\x1b[2Jinnocent\\u202e" in shown
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
