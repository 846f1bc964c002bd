"""Strangers who read slowly hold no more threads than they may, and none for long: with a real gunicorn."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from product import free_port
from release_parts import checkout

from source_server.assembly import gunicorn_argv
from source_server.cli import main
from source_server.config import from_env
from source_server.server_home import Address
from source_server.services.files.releases import MOST_READERS

pytestmark = pytest.mark.mongo

THREADS = 8
SIZE = 256 * 1024 * 1024
FILE = "/releases/current/dockercomp-0.1.0.tar.gz"
IMPATIENT = """\
from source_server.web.http import streams
streams.PATIENCE_S = {patience}
from source_server.wsgi import application
"""


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A folder with one release, whose archive is far larger than what a connection buffers."""
    run = CliRunner()
    out, key = tmp_path / "releases", str(tmp_path / "key")
    assert run.invoke(main, ["release", "keygen", "--key", key]).exit_code == 0
    made = ["release", "make", "--key", key, "--out", str(out), "--checkout", str(checkout(tmp_path / "src"))]
    assert run.invoke(main, made).exit_code == 0
    os.truncate(out / "0.1.0" / FILE.rpartition("/")[2], SIZE)
    return out


@pytest.fixture
def serve(stores: Any, mongo_uri: str, raw: Any, releases: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts one web process, with this patience, over the fresh database; answers its port."""
    started = []

    def start(patience: float) -> int:
        port = free_port()
        (tmp_path / "impatient.py").write_text(IMPATIENT.format(patience=patience))
        env = {
            **os.environ,
            "DOCKERCOMP_HOME": str(tmp_path),
            "DOCKERCOMP_MONGO_URI": mongo_uri,
            "DOCKERCOMP_DATABASE": raw.name,
            "DOCKERCOMP_RELEASES": str(releases),
            "DOCKERCOMP_WEB_PROCESSES": "1",
            "DOCKERCOMP_WEB_THREADS": str(THREADS),
            "PYTHONPATH": str(tmp_path),
        }
        argv = gunicorn_argv(from_env(env), [Address("127.0.0.1", port)], "impatient:application()")
        started.append(subprocess.Popen(argv, env=env, stderr=(tmp_path / "log").open("wb")))
        eventually(lambda: healthy(port))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def test_many_who_stop_reading_leave_the_server_at_work(serve: Any) -> None:
    port = serve(patience=600)
    with ExitStack() as held:
        readers = [held.enter_context(reader(port)) for _ in range(3 * THREADS)]
        heads = [one.recv(12) for one in readers]
        answered = [healthy(port) for _ in range(3)]

    assert sorted(heads) == [b"HTTP/1.1 200"] * MOST_READERS + [b"HTTP/1.1 503"] * (
        3 * THREADS - MOST_READERS
    )
    assert answered == [True, True, True]


@pytest.mark.parametrize("drip", [0, 1024])
def test_those_who_read_too_slowly_lose_their_place_and_resume(serve: Any, drip: int) -> None:
    port = serve(patience=2)
    with ExitStack() as held:
        readers = [held.enter_context(reader(port)) for _ in range(MOST_READERS)]
        assert {one.recv(12) for one in readers} == {b"HTTP/1.1 200"}
        assert status_of_file(port) == 503

        def has_place() -> bool:
            for one in readers:
                one.recv(drip) if drip else None
            return status_of_file(port) == 206

        eventually(has_place)
        read = readers[0].makefile("rb").read()  # what was on its way still arrives

    assert 0 < len(read) < SIZE


def test_cutting_them_off_does_not_keep_the_others_waiting(serve: Any) -> None:
    port, waited = serve(patience=1), [0.0]
    with ExitStack() as held:
        for _ in range(MOST_READERS):
            assert held.enter_context(reader(port)).recv(12) == b"HTTP/1.1 200"

        def has_place() -> bool:
            begun = time.monotonic()
            served = healthy(port) and status_of_file(port) == 206
            waited.append(time.monotonic() - begun)
            return served

        eventually(has_place)
        has_place()

    assert max(waited) < 2 * MOST_READERS  # and not two seconds for each of them


def test_a_steady_reader_gets_all_of_it_over_a_connection_that_stays(serve: Any) -> None:
    link = http.client.HTTPConnection("127.0.0.1", serve(patience=5), timeout=60)
    sizes, used = [], set()
    for method, asked in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=-10"}), ("GET", {})):
        link.request(method, FILE, headers=asked)
        used.add(link.sock.getsockname())
        answer = link.getresponse()
        sizes.append(sum(len(piece) for piece in iter(lambda one=answer: one.read(2**20), b"")))

    assert sizes == [SIZE, 0, 10, SIZE]
    assert len(used) == 1


def reader(port: int) -> socket.socket:
    """One who asks for the archive, with a small buffer."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(60)
    link.connect(("127.0.0.1", port))
    link.sendall(f"GET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return link


def status_of_file(port: int) -> int:
    """The answer's status when the last ten bytes of the archive are asked for."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(
            f"GET {FILE} HTTP/1.1\r\nHost: x\r\nRange: bytes=-10\r\nConnection: close\r\n\r\n".encode()
        )
        return int(link.makefile("rb").readline().split()[1])


def healthy(port: int) -> bool:
    """Whether the server answers within ten seconds."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def eventually(condition: Any, within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.1)
