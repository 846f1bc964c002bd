"""What `dockercomp` says to those who slip, or press Ctrl-C: against the whole product, with tables of some size."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from product import Product, running, until

from dockercomp.api import Server

pytestmark = pytest.mark.mongo

ECHO, CAT, FALSE = "/bin/echo", "/bin/cat", "/bin/false"
BROKEN = 2_000  #: the line that is no JSON


@pytest.fixture(scope="module")
def product(mongo_uri: str) -> Iterator[Product]:
    allowed = json.dumps([[ECHO], [CAT], [FALSE]])
    with running("--beat-seconds", "1", "--processes", "1", "--allow", allowed) as started:
        until(lambda: "1 live" in started.run("dockercomp", "status"), seconds=60, what="a client")
        yield started


@pytest.fixture(scope="module")
def broken(product: Product) -> Path:
    """A table of 16 MB: more than a connection holds under way."""
    path = product.home / "broken.jsonl"
    with path.open("w") as out:
        for number in range(1, 8 * BROKEN):
            out.write('{"i": 5,\n' if number == BROKEN else f'{{"i": {number}, "pad": "{"x" * 1000}"}}\n')
    return path


def called(product: Product, *argv: str) -> tuple[int, str, str]:
    done = subprocess.run(("dockercomp", *argv), env=product.env, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def table(product: Product, text: str = "a\n1\n") -> str:
    path = product.home / "one.csv"
    path.write_text(text)
    return str(path)


def server_of(product: Product) -> Server:
    return Server(product.address, Path(product.env["DOCKERCOMP_KEY_FILE"]).read_text().strip())


def test_a_broken_line_in_a_large_table_is_named_and_no_task_is_left(product: Product, broken: Path) -> None:
    status, out, err = called(product, "submit", str(broken), "--project", "large", "--", CAT)

    assert (status, out) == (2, "") and f"Line {BROKEN} is not JSON" in err
    assert server_of(product).tasks("large") == []


def test_a_refusal_is_heard_by_who_listens_only_after_having_sent_everything(
    product: Product, broken: Path
) -> None:
    source = server_of(product)
    source.add_project("heard")
    task = source.add_task("heard", [CAT])
    link = http.client.HTTPConnection("127.0.0.1", product.port, timeout=120)
    key = Path(product.env["DOCKERCOMP_KEY_FILE"]).read_text().strip()
    told = {"Authorization": f"Bearer {key}", "Content-Type": "application/jsonl"}

    with broken.open("rb") as body:
        link.request(
            "PUT", f"/tasks/{task}/chunks/u", body, {**told, "Content-Length": str(broken.stat().st_size)}
        )
    answer = link.getresponse()

    assert answer.status == 400 and f"Line {BROKEN} " in json.loads(answer.read())["error"]
    link.request("GET", f"/tasks/{task}", headers=told)  # on the same connection
    assert link.getresponse().status == 200


def test_the_same_task_again_says_how_far_it_is(product: Product) -> None:
    argv = ("submit", table(product), "--project", "twice", "--id", "twice", "--", ECHO, "{a}")
    assert "1 row is uploaded; start it with: dockercomp assign --project twice" in called(product, *argv)[2]
    product.run("dockercomp", "assign", "--project", "twice")
    product.run("dockercomp", "watch", "twice")

    status, out, err = called(product, *argv)

    assert (status, out) == (0, "twice\n")
    assert "complete (succeeded)" in err and "dockercomp rerun twice --all" in err


def test_coming_after_a_task_that_is_not_there_is_said_at_once_and_by_who_waits(product: Product) -> None:
    argv = ("--project", "chain", "--id", "later", "--after-task", "mistyped", "--", ECHO, "{a}")
    says = "It comes after the task mistyped, which does not exist yet."

    submitted = called(product, "submit", table(product), *argv)
    assigned = called(product, "assign", "--project", "chain")

    assert submitted[0] == 0 and f"Warning: {says}" in submitted[2]
    assert assigned[0] == 0 and f"Warning: {says}" in assigned[2]
    shown = product.run("dockercomp", "task", "show", "later")
    assert "follows    mistyped, which it waits for" in shown
    product.run("dockercomp", "cancel", "later")
    never = called(
        product, "submit", table(product), "--project", "chain", "--after-task", "later", "--", ECHO
    )
    assert "Warning: It comes after the task later, which was cancelled." in never[2]


def test_a_log_gets_lines_in_place_of_a_bar_and_the_reason_of_the_end(product: Product) -> None:
    failing = called(
        product,
        "submit",
        table(product),
        "--project",
        "logs",
        "--id",
        "bad",
        "--failure",
        f"{ECHO} x",
        "--",
        FALSE,
    )
    assert failing[0] == 0
    called(
        product,
        "submit",
        table(product),
        "--project",
        "logs",
        "--id",
        "next",
        "--after-task",
        "bad",
        "--",
        ECHO,
    )
    product.run("dockercomp", "assign", "--project", "logs")
    product.run("dockercomp", "cancel", "bad")
    until(lambda: server_of(product).task("next")["state"] == "complete", seconds=60, what="no way to go on")

    status, out, err = called(product, "watch", "next")

    assert status == 1 and "%|" not in err and "dockercomp errors" not in err
    assert out.splitlines() == [
        "cancelled: 0 of 1 chunks have a result.",
        "It comes after the task bad, which was cancelled.",
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ("results", "-o", "/nowhere/at/all/x.csv"),
            "There is no folder /nowhere/at/all to write x.csv into.",
        ),
        (("results", "-o", "/proc/x.csv"), "No such file or directory."),
        (("rerun", "x", "--all", "--failed"), "Say one of --all, --failed and --suspect, or --chunk CHUNK."),
        (("why", "x"), "A chunk is TASK.N, such as x.0"),
        (
            ("submit", "TABLE", "--project", "p", "--limit", "until=tomorrow", "--", ECHO),
            "'limits.until': must be an instant with its offset, such as ",
        ),
        (("submit", "TABLE", "--project", "p", "--output", "/out/x", "--", ECHO), "relative to /out"),
        (("submit", "TABLE", "--project", "p", "--output", "a/../x", "--", ECHO), "relative to /out"),
    ],
)
def test_a_slip_is_answered_in_a_sentence(product: Product, argv: tuple[str, ...], sentence: str) -> None:
    real = tuple(table(product) if one == "TABLE" else one for one in argv)

    status, _, err = called(product, *real)

    assert status == 2 and sentence in err


def test_status_leaves_out_older_tasks_that_do_not_run_and_says_so(product: Product) -> None:
    source = server_of(product)
    source.add_project("crowd")
    oldest, running_one = (source.add_task("crowd", [CAT], name=name) for name in ("oldest", "runs"))
    source.upload(running_one, Path(table(product)))
    source.pause(running_one)
    source.start(running_one)
    newer = [source.add_task("crowd", [CAT]) for _ in range(50)]

    _, out, err = called(product, "status")

    listed = {line.split()[0] for line in out.splitlines()}
    assert {running_one, *newer} <= listed and oldest not in listed
    assert "older tasks are left out; all of them: dockercomp task list" in err
    assert oldest in product.run("dockercomp", "task", "list", "--project", "crowd")


def test_one_chunk_is_computed_anew_by_its_number(product: Product) -> None:
    argv = ("submit", table(product), "--project", "anew", "--id", "anew", "--limit", "stop_when=9")
    assert called(product, *argv, "--", ECHO, "{a}")[0] == 0
    product.run("dockercomp", "assign", "--project", "anew")
    product.run("dockercomp", "watch", "anew")
    assert "stop_when 9 answers" in product.run("dockercomp", "task", "show", "anew")

    status, out, _ = called(product, "rerun", "anew", "--chunk", "0")

    assert (status, out) == (0, "1 chunk sent out again.\n")


def test_who_was_told_and_why_not_is_shown_with_the_task(product: Product) -> None:
    whom = ("--notify", "https://127.0.0.1/hook", "--notify", "ada@example.org")
    argv = ("submit", table(product), "--project", "told", "--id", "told", *whom, "--", ECHO)
    assert called(product, *argv)[0] == 0
    product.run("dockercomp", "assign", "--project", "told")
    product.run("dockercomp", "watch", "told")

    def shown() -> str:
        return product.run("dockercomp", "task", "show", "told")

    until(lambda: "given up" in shown() and "DOCKERCOMP_SMTP_HOST" in shown(), seconds=60, what="both tries")
    lines = [line.strip() for line in shown().splitlines()]
    assert "notify     https://127.0.0.1/hook, ada@example.org" in lines
    assert "told       https://127.0.0.1/hook: given up, 1 try" in lines
    assert "127.0.0.1 has an address that the server does not call." in lines


def test_ctrl_c_ends_watching_and_leaves_the_task(product: Product) -> None:
    argv = ("submit", table(product), "--project", "calm", "--id", "calm", "--", ECHO)
    assert called(product, *argv)[0] == 0
    watching = subprocess.Popen(
        ["dockercomp", "watch", "calm"],
        env=product.env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert watching.stderr is not None
    begun = watching.stderr.readline()

    watching.send_signal(signal.SIGINT)

    said = watching.communicate(timeout=60)[1]
    assert "has not been started" in begun and watching.returncode == 130
    assert said.splitlines()[-1] == "The task goes on: dockercomp watch calm"
    assert server_of(product).task("calm")["state"] == "waiting"


def test_ctrl_c_while_a_table_is_sent_leaves_no_task(product: Product, broken: Path) -> None:
    source = server_of(product)
    sending = subprocess.Popen(
        ["dockercomp", "submit", str(broken), "--project", "torn", "--", CAT],
        env=product.env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )

    def begun() -> bool:
        assert sending.poll() is None, "it was over before"
        return any(one["id"] == "torn" for one in source.projects()) and bool(source.tasks("torn"))

    until(begun, seconds=60, what="the upload")
    sending.send_signal(signal.SIGINT)

    said = sending.communicate(timeout=60)[1]
    assert sending.returncode == 130 and "Traceback" not in said
    assert source.tasks("torn") == []


def test_a_terminal_of_80_columns_shows_how_far_a_file_is(product: Product) -> None:
    path = product.home / "data.bin"
    path.write_bytes(os.urandom(2**20) * 64)

    shown = in_terminal(product, "dockercomp", "put", str(path))

    assert "data.bin: " in shown and "100%|" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def in_terminal(product: Product, *argv: str, columns: int = 80) -> str:
    """What a command writes to a terminal so wide."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(argv, env=product.env, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        written = b"".join(pieces(ours, process))
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode().replace("\r", "\n")


def pieces(terminal: int, process: subprocess.Popen[Any]) -> Iterator[bytes]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # nobody holds its other side any more
            return
        if not piece:
            return
        yield piece
    process.kill()
