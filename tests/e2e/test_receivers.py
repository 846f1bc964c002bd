"""Receivers in the whole product: the operator's and the scientist's commands, curl's way, and a real mail client's."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from parts import require
from product import Product, free_port, running, until

MAIL_PORT = free_port()


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    """A server that takes mail, with two clients that may run echo."""
    options = ("--mail", f"127.0.0.1:{MAIL_PORT}", "--beat-seconds", "1")
    with running(*options, "--processes", "2", "--allow", '[["/bin/echo"]]') as one:
        template = one.home / "job.json"
        template.write_text(json.dumps({"action": ["/bin/echo", "hello {name}"]}))
        one.run("dockercomp", "project", "letters")
        yield one


def opened(product: Product, kind: str, *options: str) -> dict[str, str]:
    template = str(product.home / "job.json")
    said = product.run(
        "dockercomp", "receiver", "add", kind, "--project", "letters", "--template", template, *options
    )
    return dict(line.split(maxsplit=1) for line in said.splitlines())


def answers(product: Product, key: str) -> list[str]:
    """What came of the event with this key, once its task is complete."""
    task = ""

    def complete() -> bool:
        nonlocal task
        for line in product.run("dockercomp", "receiver", "events", "--project", "letters").splitlines():
            if line.endswith(key) and " done " in line:
                task = line.split()[4]
        return bool(task) and "complete" in product.run("dockercomp", "status")

    until(complete, seconds=60, what=f"the task of {key}")
    until(lambda: all(row["answer"] for row in product.rows(task)), seconds=60, what="its answers")
    return [row["answer"] for row in product.rows(task)]


def test_a_message_over_http_is_computed(product: Product) -> None:
    way = opened(product, "http")
    body = json.dumps({"id": "by-http", "rows": [{"name": "Ada"}]}).encode()
    headers = {"Authorization": f"Bearer {way['secret']}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(way["address"], body, headers)) as answer:
        assert answer.status == 202

    assert answers(product, "by-http") == ["hello Ada"]


def test_a_file_that_is_put_is_computed(product: Product, tmp_path: Path) -> None:
    way = opened(product, "upload")
    table = tmp_path / "names.csv"
    table.write_text("name\nGrace\nEmmy\n")
    header = f"Authorization: Bearer {way['secret']}"
    product.run("curl", "-sf", "-T", str(table), "-H", header, f"{way['address']}/")

    assert answers(product, "names.csv") == ["hello Grace", "hello Emmy"]


def test_mail_is_computed_and_the_door_for_mail_comes_back_after_a_kill(product: Product) -> None:
    way = opened(product, "mail", "--set", 'senders=["@example.org"]')
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = "ada@example.org", "x@example.org", "<by@mail>"
    message.set_content("Hello")
    message.add_attachment(b"name\nMary\n", maintype="text", subtype="csv", filename="names.csv")

    def sent() -> bool:
        try:
            with smtplib.SMTP("127.0.0.1", MAIL_PORT, timeout=20) as client:
                client.sendmail(
                    "ada@example.org",
                    [way["address"].replace("HOST", "example.org")],
                    message.as_bytes(policy=SMTP),
                )
            return True
        except OSError:
            return False

    [pid] = product.pids("mail")
    os.kill(pid, signal.SIGKILL)

    until(sent, seconds=60, what="the door for mail answers again")
    assert answers(product, "<by@mail>") == ["hello Mary"]


def test_submit_takes_parquet(product: Product, tmp_path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        require("pyarrow is not installed")
    table = tmp_path / "names.parquet"
    parquet.write_table(pyarrow.table({"name": ["Ada", "Zoë"], "n": [1, 2]}), table)
    action = ("--", "/bin/echo", "hello {name} {n}")

    task = product.run("dockercomp", "submit", str(table), "--project", "letters", *action).split()[-1]
    product.run("dockercomp", "assign", "--project", "letters")

    product.run("dockercomp", "watch", task)
    assert [row["answer"] for row in product.rows(task)] == ["hello Ada 1", "hello Zoë 2"]


def test_a_secret_can_go_into_a_file_and_is_not_shown_then(product: Product, tmp_path: Path) -> None:
    secret_file = tmp_path / "in.secret"

    way = opened(product, "mail", "--secret-file", str(secret_file))

    assert "secret" not in way
    assert way["address"] == "run+SECRET@HOST"
    assert len(secret_file.read_text().strip()) == 32
    assert secret_file.stat().st_mode & 0o077 == 0


def test_a_receiver_is_listed_and_removed(product: Product) -> None:
    way = opened(product, "schedule", "--set", "cron=0 0 1 1 *", "--set", 'rows=[{"name": "x"}]')

    listed = product.run("dockercomp", "receiver", "list", "--project", "letters")
    product.run("dockercomp", "receiver", "remove", way["receiver"], "--project", "letters")

    assert way["receiver"] in listed
    assert way["receiver"] not in product.run("dockercomp", "receiver", "list", "--project", "letters")
