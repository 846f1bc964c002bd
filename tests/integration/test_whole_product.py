"""The main job with real processes: supervisor, mongod, gunicorn, housekeeping and four clients; things die midway."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from product import Product, running, until

AWK = "/usr/bin/awk"
JOB = [AWK, "-F,", '{ gsub(/[^0-9,]/, ""); system("sleep 0.05"); print $1 + $2 }']


def literal(item: str) -> str:
    return item.replace("{", "{{").replace("}", "}}")


def submit(product: Product, rows: int, job: list[str] = JOB) -> str:
    data = product.home / "pairs.csv"
    data.write_text("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(rows)))
    argv = ["dockercomp", "submit", str(data), "--project", "sums", "--", *(literal(item) for item in job)]
    return product.run(*argv).strip()


@pytest.mark.mongo
def test_a_client_and_the_server_are_killed_midway_and_every_row_is_there_once_and_right(
    mongo_uri: str,
) -> None:
    rows = 400
    with running("--beat-seconds", "1", "--processes", "4", "--allow", json.dumps([JOB])) as product:
        until(lambda: "4 live" in product.run("dockercomp", "status"), seconds=60, what="four clients")
        task = submit(product, rows)
        product.run("dockercomp", "assign", "--all")
        until(lambda: done(product, task) >= 40, seconds=60, what="some results")

        os.kill(product.pids("client_container")[0], signal.SIGKILL)
        until(lambda: done(product, task) >= 120, seconds=60, what="more results")
        os.kill(min(product.pids("gunicorn")), signal.SIGKILL)
        halfway = done(product, task)
        product.run("dockercomp", "watch", task)

        table = product.rows(task)
    assert halfway < rows
    assert [(row["n"], row["answer"]) for row in table] == [(str(n), str(n + n * n)) for n in range(rows)]
    assert {row["state"] for row in table} == {"done"}
    # Who is slow to begin may find nothing left. Who was killed came back as who it was: there are no others.
    assert 1 < len({row["container"] for row in table}) <= 4


def done(product: Product, task: str) -> int:
    from dockercomp.api import Server
    from dockercomp.config import read_key
    from dockercomp.failures import ServerUnavailable

    try:
        server = Server(product.address, read_key(Path(product.env["DOCKERCOMP_KEY_FILE"])))
        return server.progress(task).done
    except ServerUnavailable:
        return 0


@pytest.mark.mongo
def test_a_server_outage_loses_nothing_that_was_finished(mongo_uri: str) -> None:
    with running("--beat-seconds", "1", "--processes", "2", "--allow", json.dumps([JOB])) as product:
        until(lambda: "2 live" in product.run("dockercomp", "status"), seconds=60, what="two clients")
        task = submit(product, 100)
        product.run("dockercomp", "assign", "--project", "sums")
        until(lambda: done(product, task) >= 10, seconds=60, what="some results")
        (supervisor,) = [int((product.home / "server" / "up.pid").read_text())]

        for _ in range(3):  # all of it is gone at once, database included, and comes back
            os.kill(supervisor, signal.SIGKILL)
            until(lambda: not product.pids("gunicorn"), seconds=20, what="the end of the web processes")
            options = ("--beat-seconds", "1", "--processes", "2", "--allow", json.dumps([JOB]))
            product.run(
                "dockercomp-server", "up", "--detach", "--bind", f"127.0.0.1:{product.port}", *options
            )
            supervisor = int((product.home / "server" / "up.pid").read_text())
        product.run("dockercomp", "watch", task)

        table = product.rows(task)
    assert [row["answer"] for row in table] == [str(n + n * n) for n in range(100)]


@pytest.mark.mongo
def test_a_failing_program_is_told_to_the_scientist(mongo_uri: str) -> None:
    job = ["/bin/ls", "/no/such/place"]
    with running("--processes", "1", "--allow", json.dumps([job])) as product:
        task = submit(product, 1, job)
        product.run("dockercomp", "assign", "--all")
        until(lambda: "No such file" in errors(product), seconds=60, what="an error")

        table = product.rows(task)
    assert table[0]["answer"] == "" and table[0]["state"] in ("delayed", "leased", "ready")


def errors(product: Product) -> str:
    return product.run("dockercomp", "errors")


@pytest.mark.mongo
def test_commands_say_in_one_sentence_what_is_wrong(mongo_uri: str) -> None:
    def complaint(product: Any, *argv: str, env: dict[str, str] | None = None) -> str:
        import subprocess

        done = subprocess.run(argv, env={**product.env, **(env or {})}, capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    with running() as product:
        bad = product.home / "bad.csv"
        bad.write_text("a,b\n1,2\n3\n")
        submit_bad = ("dockercomp", "submit", str(bad), "--project", "sums", "--", "/bin/cat")

        assert "Line 3 has 1 values" in complaint(product, *submit_bad)
        assert "no task nosuch" in complaint(product, "dockercomp", "watch", "nosuch")
        assert "DOCKERCOMP_KEY_FILE" in complaint(
            product, "dockercomp", "status", env={"DOCKERCOMP_KEY_FILE": ""}
        )
        assert "does not answer" in complaint(
            product, "dockercomp", "status", env={"DOCKERCOMP_SERVER": "http://127.0.0.1:1"}
        )
        assert "runs" in complaint(product, "dockercomp-server", "up")
        assert "already" in complaint(
            product, "dockercomp-server", "account", "add", "ada", "--role", "admin"
        )


@pytest.mark.mongo
def test_a_download_that_broke_off_is_continued_and_equals_a_whole_one(mongo_uri: str) -> None:
    with running() as product:
        task = submit(product, 3000)
        whole = product.home / "whole.csv"
        product.run("dockercomp", "results", "--task", task, "-o", str(whole))
        lines = whole.read_bytes().splitlines(keepends=True)
        part = product.home / f".again.csv.{task}.part"

        for kept in (b"".join(lines[:1000]) + lines[1000][:9], b"task,n\r\nrubbish", lines[0]):
            part.write_bytes(kept)
            product.run("dockercomp", "results", "--task", task, "-o", str(product.home / "again.csv"))

            assert (product.home / "again.csv").read_bytes() == whole.read_bytes() and not part.exists()
