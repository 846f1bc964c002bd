"""Strangers who send a byte now and then hold no thread for long: with a real gunicorn."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from product import free_port

from source_server.assembly import gunicorn_argv
from source_server.config import from_env
from source_server.server_home import Address

pytestmark = pytest.mark.mongo

THREADS = 4
IMPATIENT = """\
from source_server import deadlines, gunicorn_settings
from source_server.web.http import paced_body
gunicorn_settings.HEAD_S = gunicorn_settings.REST_S = paced_body.PATIENCE_S = {patience}
deadlines.LOOK_S = 0.05
from source_server.wsgi import application
"""
HEAD = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: "
TOLD = "HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
BODY = f"POST /projects {TOLD}Content-Length: 5000\r\n\r\n"
CHUNKED = f"POST /projects {TOLD}Transfer-Encoding: chunked\r\n\r\n"
UNREAD = "POST /projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
ROWS = f"PUT /tasks/{{task}}/chunks/one {TOLD}Content-Type: text/csv\r\nContent-Length: 5000\r\n\r\n"


@pytest.fixture
def port(
    stores: Any, mongo_uri: str, raw: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[int]:
    """One web process of few threads and little patience (in seconds; the parameter says how much)."""
    port = free_port()
    (tmp_path / "impatient.py").write_text(IMPATIENT.format(patience=getattr(request, "param", 2)))
    env = {
        **os.environ,
        "DOCKERCOMP_HOME": str(tmp_path),
        "DOCKERCOMP_MONGO_URI": mongo_uri,
        "DOCKERCOMP_DATABASE": raw.name,
        "DOCKERCOMP_WEB_PROCESSES": "1",
        "DOCKERCOMP_WEB_THREADS": str(THREADS),
        "PYTHONPATH": str(tmp_path),
    }
    argv = gunicorn_argv(from_env(env), [Address("127.0.0.1", port)], "impatient:application()")
    process = subprocess.Popen(argv, env=env, stderr=(tmp_path / "log").open("wb"))
    eventually(lambda: healthy(port))
    yield port
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize(
    "begin, drop",
    [(HEAD, b"a"), (BODY, b" "), (CHUNKED, b"1\r\n \r\n"), (UNREAD, b" "), (ROWS, b"a")],
    ids=["head", "body", "chunked", "unread", "rows"],
)
def test_who_sends_a_byte_now_and_then_is_cut_off(port: int, scientist: Any, begin: str, drop: bytes) -> None:
    scientist.ok("POST", "/projects", {"name": "sums"})
    task = scientist.ok("POST", "/projects/sums/tasks", {"action": ["/bin/cat"]})["id"]
    with ExitStack() as held:
        drips = [held.enter_context(connected(port)) for _ in range(THREADS)]
        for one in drips:
            one.sendall(begin.format(key=scientist.key, task=task).encode())

        def all_cut_off() -> bool:
            for one in list(drips):
                try:
                    one.sendall(drop)
                    one.setblocking(False)
                    with suppress(BlockingIOError):
                        while one.recv(4096):
                            pass
                        drips.remove(one)
                except OSError:
                    drips.remove(one)
                else:
                    one.settimeout(30)
            return not drips

        eventually(all_cut_off)
        assert healthy(port)


def test_who_never_hangs_up_keeps_nobody_waiting(port: int) -> None:
    with ExitStack() as held:
        for _ in range(12):
            one = held.enter_context(connected(port))
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        begun = time.monotonic()

        assert [healthy(port, within_s=60) for _ in range(3)] == [True] * 3
        assert time.monotonic() - begun < 20  # and not two seconds for each of them, one after the other


@pytest.mark.parametrize("port", [20], indirect=True)
def test_who_takes_a_while_to_send_a_whole_request_is_answered(port: int, scientist: Any) -> None:
    body = b'{"name": "sums"}'
    head = f"POST /projects {TOLD}Content-Length: {len(body)}\r\n\r\n".format(key=scientist.key).encode()
    statuses = []
    with connected(port) as link:
        for pieces in (
            (head[:20], head[20:], body[:5], body[5:]),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",),
        ):
            for piece in pieces:
                time.sleep(0.3)
                link.sendall(piece)
            answer = http.client.HTTPResponse(link)
            answer.begin()
            answer.read()
            statuses.append(answer.status)

    assert statuses == [201, 200]


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def healthy(port: int, within_s: float = 10) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=within_s) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def eventually(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.2)
