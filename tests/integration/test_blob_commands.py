"""Files through the scientist's command, and slow senders: with a real server, real connections and real files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from people import Scientist, Volunteer
from product import free_port

from dockercomp import blobs as library
from dockercomp.api import Server
from dockercomp.cli import main
from dockercomp.failures import Refused
from source_server.assembly import gunicorn_argv
from source_server.config import from_env
from source_server.server_home import Address

pytestmark = pytest.mark.mongo

PATIENT = """\
from source_server import deadlines
from source_server.web.http import paced_body
paced_body.PATIENCE_S, deadlines.LOOK_S = {patience}, 0.05
from source_server.wsgi import application
"""
DATA = random.Random(3).randbytes(9_000_000)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Serving:
    """One web process over the fresh database."""

    def __init__(self, mongo_uri: str, database: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._env = {
            **os.environ,
            "DOCKERCOMP_HOME": str(folder),
            "DOCKERCOMP_MONGO_URI": mongo_uri,
            "DOCKERCOMP_DATABASE": database,
            "DOCKERCOMP_WEB_PROCESSES": "1",
            "DOCKERCOMP_WEB_THREADS": "8",
            "DOCKERCOMP_BLOB_MB": "12",
            "PYTHONPATH": str(folder),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, patience: float = 30.0) -> None:
        (self._folder / "patient.py").write_text(PATIENT.format(patience=patience))
        argv = gunicorn_argv(from_env(self._env), [Address("127.0.0.1", self.port)], "patient:application()")
        log = (self._folder / "log").open("ab")
        self.process = subprocess.Popen(argv, env=self._env, stderr=log, start_new_session=True)
        eventually(self.answers)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b" 200 " in link.makefile("rb").readline()
        except OSError:
            return False

    def kill(self) -> None:
        """Of the whole group, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None


@pytest.fixture
def serving(stores: Any, mongo_uri: str, raw: Any, tmp_path: Path) -> Iterator[Serving]:
    made = Serving(mongo_uri, raw.name, tmp_path)
    yield made
    made.kill()


@pytest.fixture
def at(serving: Serving, tmp_path: Path) -> Callable[[str], Any]:
    """Runs the scientist's command with this key."""

    def of(key: str) -> Any:
        (tmp_path / "key").write_text(key)
        env = {"DOCKERCOMP_SERVER": serving.url, "DOCKERCOMP_KEY_FILE": str(tmp_path / "key")}

        def run(*argv: object) -> str:
            done = CliRunner().invoke(main, [str(one) for one in argv], env=env)
            assert done.exit_code == 0, done.output
            return done.stdout

        return run

    return of


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


def received(raw: Any) -> int:
    found = raw.blob_uploads.find_one({})
    return 0 if found is None else int(found["received"])


def test_files_go_to_jobs_and_those_of_answers_come_back(
    serving: Serving, at: Any, scientist: Scientist, volunteer: Any, tmp_path: Path
) -> None:
    serving.start()
    run = at(scientist.key)
    (tmp_path / "ref.bin").write_bytes(DATA)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "rows.csv").write_text(f"name,hash\na,{sha(DATA)}\n")

    hashes = run("put", "--quiet", tmp_path / "ref.bin", tmp_path / "empty").split()
    submit = ["submit", tmp_path / "rows.csv", "--project", "sums", "--output", "**"]
    files = ["--input", f"ref.bin={tmp_path / 'ref.bin'}", "--input", "rows/{name}={hash}"]
    task = run(*submit, *files, "--", "/bin/cat").split()[-1]
    run("assign", "--all")
    who: Volunteer = volunteer()
    [chunk] = who.claim(1)
    proof = {"Dockercomp-Ticket": f"{chunk['id']} 0 {chunk['token']} {chunk['ticket']}"}
    for data in (DATA, b""):
        assert who.call("PUT", f"/blobs/{sha(data)}", data=data, headers=proof).status_code == 201
    named = {"b/out.bin": DATA, "none": b""}
    brought = [{"name": name, "sha256": sha(data), "bytes": len(data)} for name, data in named.items()]
    assert who.add(who.attempt(chunk, files=brought)).status_code == 200
    listed = run("files", task)
    fetched = [run("files", task, "-o", tmp_path / "out") for _ in range(2)]

    assert hashes == [sha(DATA), sha(b"")] and sha(DATA) in run("blobs")
    assert chunk["files"] == [{"name": "rows/a", "sha256": sha(DATA), "bytes": len(DATA)}]
    assert "b/out.bin" in listed and fetched[0] == fetched[1]
    got = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert got == {"0/b/out.bin": DATA, "0/none": b""}


def test_an_upload_outlives_a_server_that_is_killed_in_the_middle_of_it(
    serving: Serving, scientist: Scientist, raw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "TRIES", 200)
    monkeypatch.setattr(library, "PAUSE_S", 0.0)
    monkeypatch.setattr(library, "PART", 3_000_000)
    serving.start()
    (tmp_path / "data").write_bytes(DATA)
    kept: list[int] = []
    later: list[int] = []

    def told(done: int, whole: int) -> None:
        if kept:
            later.append(done)
        elif received(raw) >= 3_000_000:  # kept, not only sent
            serving.kill()
            kept.append(received(raw))
            serving.start()

    made = Server(serving.url, scientist.key).put_file(tmp_path / "data", told=told)

    assert made == sha(DATA) and kept == [3_000_000] and min(later) >= 3_000_000
    assert scientist.call("GET", f"/blobs/{sha(DATA)}", buffered=True).data == DATA


def test_a_download_goes_on_where_it_broke_off_and_what_is_damaged_is_not_kept(
    serving: Serving, scientist: Scientist, tmp_path: Path
) -> None:
    serving.start()
    assert scientist.call("PUT", f"/blobs/{sha(DATA)}", data=DATA).status_code == 201
    server, target = Server(serving.url, scientist.key), tmp_path / "out" / "data"
    part = tmp_path / "out" / f".data.{sha(DATA)[:16]}.part"
    part.parent.mkdir()
    part.write_bytes(DATA[:5_000_000])

    server.fetch_blob(sha(DATA), len(DATA), target)
    whole = target.read_bytes()
    part.write_bytes(b"?" * len(DATA))
    target.unlink()
    with pytest.raises(Exception, match="damaged"):
        server.fetch_blob(sha(DATA), len(DATA), target)
    server.fetch_blob(sha(DATA), len(DATA), target)

    assert whole == target.read_bytes() == DATA and not part.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\b", "c:x", "a//b", "a\x00b", ""])
def test_a_file_never_lands_outside_of_its_folder(name: str) -> None:
    with pytest.raises(Refused):
        library.checked_name(name)


def test_what_is_too_large_is_said_and_not_tried_again(
    serving: Serving, scientist: Scientist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.start()
    (tmp_path / "data").write_bytes(b"x" * 13_000_000)
    begun = time.monotonic()

    with pytest.raises(Refused, match="at most 12000000 bytes"):
        Server(serving.url, scientist.key).put_file(tmp_path / "data")

    assert time.monotonic() - begun < 30 and serving.answers()


@pytest.mark.parametrize("drip", [0, 1])
def test_senders_who_stop_or_drip_lose_their_thread_and_not_what_they_sent(
    serving: Serving, scientist: Scientist, raw: Any, drip: int
) -> None:
    serving.start(patience=1.5)
    head = (
        f"PUT /blobs/{sha(DATA)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scientist.key}\r\n"
        f"Content-Length: {len(DATA)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as link:
        link.sendall(head.encode() + DATA[:2_000_000])
        answer: list[bytes] = []
        reader = threading.Thread(target=lambda: answer.append(link.makefile("rb").readline()))
        reader.start()
        sent = 2_000_000
        while reader.is_alive():
            try:
                sent += link.send(DATA[sent : sent + drip]) if drip else 0
            except OSError:
                break
            reader.join(0.1)
        reader.join(60)

    assert 2_000_000 - 65536 <= received(raw) <= sent and b" 408 " in answer[0]
    left = received(raw)
    rest = {"Content-Range": f"bytes {left}-{len(DATA) - 1}/{len(DATA)}"}
    assert scientist.call("PUT", f"/blobs/{sha(DATA)}", data=DATA[left:], headers=rest).status_code == 201


def test_a_steady_slow_sender_is_not_cut_off(serving: Serving, scientist: Scientist) -> None:
    serving.start(patience=6)
    data = DATA[:2_500_000]
    head = (
        f"PUT /blobs/{sha(data)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scientist.key}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as link:
        link.sendall(head.encode())
        for at_ in range(0, len(data), 125_000):  # 250 kB/s, for ten seconds
            link.sendall(data[at_ : at_ + 125_000])
            time.sleep(0.4)
        status = link.makefile("rb").readline()

    assert b" 201 " in status


def test_many_who_upload_leave_threads_for_the_others(
    serving: Serving, scientist: Scientist, new_key: Any
) -> None:
    serving.start()
    links = []
    for number in range(7):
        key, data = new_key("scientist"), b"%d" % number
        link = socket.create_connection(("127.0.0.1", serving.port), timeout=60)
        link.sendall(
            f"PUT /blobs/{sha(data)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Length: 1000\r\n\r\n".encode()
        )
        links.append(link)

    told: dict[socket.socket, bytes] = {}
    while len(told) < 3:  # whichever came last: nobody knows the order in which threads run
        ready, _, _ = select.select([one for one in links if one not in told], [], [], 60)
        assert ready, "nobody is told anything"
        told |= {link: link.makefile("rb").readline()[9:12] for link in ready}
    answered = [serving.answers() for _ in range(3)]
    for link in links:
        link.close()

    assert set(told.values()) == {b"503"} and answered == [True] * 3


def test_who_is_told_not_now_amid_sending_learns_it_at_once(
    serving: Serving, scientist: Scientist, raw: Any
) -> None:
    serving.start()
    head = (
        f"PUT /blobs/{sha(DATA)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scientist.key}\r\n"
        f"Content-Length: {len(DATA)}\r\n\r\n"
    ).encode()
    first, second = (socket.create_connection(("127.0.0.1", serving.port), timeout=60) for _ in range(2))
    with first, second:
        first.sendall(head + DATA[:1000])
        eventually(lambda: raw.blob_uploads.find_one({}))
        began = time.monotonic()
        with contextlib.suppress(OSError):  # the same file comes from elsewhere at this moment
            second.sendall(head + DATA)
        took_s, status = time.monotonic() - began, second.makefile("rb").readline()

    assert b" 503 " in status
    assert took_s < 30, "it waits a minute where the server neither reads nor hangs up"
