"""`dockercomp-server up` with a real mongod and gunicorn; a small application stands in for the web part."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from product import free_port
from pymongo import MongoClient

from source_server.assembly import answers
from source_server.config import from_env
from source_server.detach import run_detached
from source_server.server_home import CannotStart, ServerHome
from source_server.stores.mongod_files import find_uri
from source_server.supervisor import Command, Errand, RestartPolicy, StartFailed, Supervisor

pytestmark = pytest.mark.mongo

STANDIN = """
import json, os
def application():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        said = {name: value for name, value in os.environ.items() if name.startswith("DOCKERCOMP_")}
        return [json.dumps(said).encode()]
    return app
"""

RUNNER = """
import os, sys
from source_server.assembly import Programs, run_server
from source_server.commands.refused import Refused
from source_server.config import from_env
from source_server.event_log import log_events
from source_server.server_home import Address, CannotStart
from source_server.supervisor import RestartPolicy, StartFailed
log_events()
programs = Programs(
    web=sys.argv[2],
    migrate=(sys.executable, "-c", sys.argv[3]),
    housekeeping=(sys.executable, "-c", "import time; time.sleep(600)"),
)
policy = RestartPolicy(first_s=0.1, cap_s=1.0)
try:
    run_server(from_env(os.environ), [Address.parse(sys.argv[1])], programs=programs, policy=policy)
except (CannotStart, StartFailed) as error:
    Refused(str(error)).show()
    sys.exit(2)
"""


class Server:
    """A server of one test, run by this machine's Python from the outside."""

    def __init__(self, home: Path, mongod: Path) -> None:
        (home / "standin.py").write_text(STANDIN)
        self.home = ServerHome(home / "server")
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.env = {
            **os.environ,
            "DOCKERCOMP_HOME": str(home),
            "DOCKERCOMP_MONGOD": str(mongod),
            "DOCKERCOMP_MONGOD_CACHE_GB": "0.25",
            "DOCKERCOMP_MIN_FREE_MB": "1",
            "PYTHONPATH": str(home),
        }
        self.env.pop("DOCKERCOMP_MONGO_URI", None)
        self.processes: list[subprocess.Popen[bytes]] = []

    def runner(self, web: str = "standin:application()", migrate: str = "") -> list[str]:
        return [sys.executable, "-c", RUNNER, self.address, web, migrate]

    def up(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.runner(), env=self.env)
        self.processes.append(process)
        eventually(lambda: self.home.find_url() is not None or process.poll() is not None)
        assert process.poll() is None
        return process

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "source_server.cli", *arguments]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120)

    def child(self, what: str) -> int:
        """The supervisor's own child whose command line has `what` in it; waits while it is being started."""
        runner = self.home.find_runner()
        assert runner is not None

        def found() -> list[int]:
            return [pid for pid in self.pids() if parent_of(pid) == runner.pid and what in command_line(pid)]

        # A part counts as ready once it is started: between fork and exec it still shows the supervisor's own
        # command line, and for an instant in exec none at all.
        eventually(lambda: len(found()) == 1)
        return found()[0]

    def pids(self) -> list[int]:
        """All processes of this server: those that were told its home."""
        mark = f"DOCKERCOMP_HOME={self.env['DOCKERCOMP_HOME']}".encode()
        return [int(place.name) for place in Path("/proc").glob("[0-9]*") if mark in environment(place)]

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(60)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server(home: Path, mongod_binary: Path) -> Iterator[Server]:
    made = Server(home, mongod_binary)
    yield made
    made.end()


def test_up_serves_and_tells_its_children_where_everything_is(server: Server) -> None:
    server.up()

    with urllib.request.urlopen(f"{server.url}/healthz") as answer:
        told = json.load(answer)

    assert told["DOCKERCOMP_MONGO_URI"] == find_uri(server.home.mongodb)
    assert told["DOCKERCOMP_HOME"] == server.env["DOCKERCOMP_HOME"]
    assert told["DOCKERCOMP_BEAT_S"] == "20"
    assert (server.home.path / "address").read_text().strip() == server.url
    assert not any(
        "password" in command_line(pid) or "mongodb://" in command_line(pid) for pid in server.pids()
    )


def test_with_a_database_of_the_operators_no_mongod_is_started(server: Server) -> None:
    server.env["DOCKERCOMP_MONGO_URI"] = "mongodb://db.invalid/?replicaSet=theirs"
    server.up()

    with urllib.request.urlopen(f"{server.url}/healthz") as answer:
        told = json.load(answer)

    assert told["DOCKERCOMP_MONGO_URI"] == "mongodb://db.invalid/?replicaSet=theirs"
    assert not any(command_line(pid).startswith(server.env["DOCKERCOMP_MONGOD"]) for pid in server.pids())
    assert not server.home.mongodb.exists()


def test_sigterm_stops_everything_in_reverse_order_and_tidies_up(server: Server) -> None:
    process = subprocess.Popen(server.runner(), env=server.env, stderr=subprocess.PIPE, text=True)
    eventually(lambda: server.home.find_url() is not None)

    process.terminate()
    _, log = process.communicate(timeout=60)

    stopped = [line.rpartition("part=")[2] for line in log.splitlines() if "part is stopped" in line]
    assert process.returncode == 0
    assert stopped == ["housekeeping", "web", "migrate", "mongod"]
    assert server.pids() == []
    assert not (server.home.path / "address").exists()
    assert not (server.home.path / "up.pid").exists()


@pytest.mark.parametrize("part", ["mongod", "gunicorn", "time.sleep"])
def test_a_killed_part_comes_back(server: Server, part: str) -> None:
    server.up()
    victim = server.child(part)

    os.kill(victim, signal.SIGKILL)

    eventually(lambda: not runs(victim))
    eventually(lambda: any(part in command_line(pid) for pid in server.pids() if parent_is_up(server, pid)))
    eventually(lambda: answers(server.url))
    eventually(lambda: find_uri(server.home.mongodb) is not None)
    assert server.child(part) != victim


def test_a_killed_mongod_comes_back_with_its_data(server: Server) -> None:
    server.up()
    uri = find_uri(server.home.mongodb)
    with MongoClient(uri, serverSelectionTimeoutMS=30_000) as client:
        client.lab.values.insert_one({"value": 1})

        os.kill(server.child("mongod"), signal.SIGKILL)

        assert client.lab.values.count_documents({"value": 1}) == 1


def test_a_killed_supervisor_leaves_no_child_and_the_next_up_works(server: Server) -> None:
    process = server.up()
    assert len(server.pids()) >= 5

    process.kill()
    process.wait()
    again = server.up()

    eventually(lambda: answers(server.url))
    runner = server.home.find_runner()
    assert runner is not None
    assert runner.pid == again.pid
    again.kill()
    again.wait()
    eventually(lambda: server.pids() == [])


def test_a_second_up_of_the_same_home_is_refused_with_the_pid(server: Server) -> None:
    first = server.up()

    second = server.command("up", "--bind", f"127.0.0.1:{free_port()}")
    detached = server.command("up", "--detach", "--bind", f"127.0.0.1:{free_port()}")

    for refused in (second, detached):
        assert refused.returncode == 2
        assert f"already runs in {server.home.path} (process {first.pid}): stop it" in refused.stderr
    assert answers(server.url)


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_taken_port_is_named_before_anything_is_started(server: Server, detach: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        refused = server.command("up", "--bind", address, *detach)

    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"Error: The address {address} is taken by another program: stop it, or choose another with --bind."
    )
    assert not server.home.mongodb.exists()
    assert server.home.find_runner() is None


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nonsense", "An address to listen on is HOST:PORT, such as 127.0.0.1:8765, not 'nonsense'."),
        (
            "192.0.2.1:8765",
            "The address 192.0.2.1:8765 is not one of this machine's: choose another with --bind.",
        ),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_refused(
    server: Server, address: str, sentence: str
) -> None:
    refused = server.command("up", "--bind", address)

    assert (refused.returncode, refused.stderr) == (2, f"Error: {sentence}\n")


def test_overlapping_addresses_are_refused_before_anything_is_started(server: Server) -> None:
    port = free_port()

    refused = server.command("up", "--bind", f"127.0.0.1:{port}", "--bind", f"0.0.0.0:{port}")

    assert refused.returncode == 2
    assert f"The address 0.0.0.0:{port} is taken" in refused.stderr


def test_too_little_disk_space_is_told_before_anything_is_written(server: Server) -> None:
    server.env["DOCKERCOMP_MIN_FREE_MB"] = "900000000"

    refused = server.command("up", "--bind", server.address)

    assert refused.returncode == 2
    assert f"The disk of {server.home.path} has only " in refused.stderr
    assert not server.home.path.exists()


def test_detached_it_answers_when_the_command_returns_and_down_stops_it(server: Server) -> None:
    settings = from_env(server.env)
    with environment_of(server):
        started = run_detached(settings, server.runner())

    answered = answers(started.url)
    said = server.command("status")
    down = server.command("down")

    assert answered
    assert said.stdout == f"Process {started.pid} answers on {server.url}.\n"
    assert (down.returncode, down.stdout) == (0, f"The source server (pid {started.pid}) is stopped.\n")
    eventually(lambda: not any(runs(pid) for pid in server.pids()))


def test_a_detached_start_that_fails_says_why_and_leaves_nothing_running(server: Server) -> None:
    settings = from_env(server.env)

    with environment_of(server), pytest.raises(StartFailed) as failed:
        run_detached(settings, server.runner(web="no_such_module:application()"))

    assert "The server's part web ended before it was ready" in str(failed.value)
    assert str(failed.value).endswith("says: ModuleNotFoundError: No module named 'no_such_module'")
    assert server.pids() == []
    assert server.home.find_runner() is None


def test_a_database_that_cannot_be_laid_out_stops_the_start_with_that_sentence(server: Server) -> None:
    settings = from_env(server.env)
    fails = server.runner(migrate="import sys; sys.exit('Error: The database carries schema 99.')")

    with environment_of(server), pytest.raises(StartFailed, match=r"^The database carries schema 99\.$"):
        run_detached(settings, fails)

    assert server.pids() == []


def test_a_detached_start_that_hangs_is_given_up_and_stopped(server: Server) -> None:
    settings = from_env(server.env)
    hangs = [sys.executable, "-c", "import time; print('thinking', flush=True); time.sleep(600)"]

    with environment_of(server), pytest.raises(StartFailed, match=r"No answer after 1 s.*is: thinking"):
        run_detached(settings, hangs, within_s=1.0)

    assert server.pids() == []


def test_down_of_nothing_says_so_and_removes_the_notes_of_a_killed_server(server: Server) -> None:
    server.home.path.mkdir()
    (server.home.path / "up.pid").write_text(f"{os.getpid()}\n")
    (server.home.path / "address").write_text("http://127.0.0.1:1\n")

    down = server.command("down")

    assert (down.returncode, down.stdout) == (0, f"No source server runs in {server.home.path}.\n")
    assert list(server.home.path.iterdir()) == []


def test_serve_without_a_database_says_what_to_set(server: Server) -> None:
    refused = server.command("serve", "--bind", server.address)

    assert refused.returncode == 2
    assert "set DOCKERCOMP_MONGO_URI, or use `dockercomp-server up`" in refused.stderr


def test_a_bad_setting_is_refused_by_its_name(server: Server) -> None:
    server.env["DOCKERCOMP_MONGOD_CACHE_GB"] = "lots"

    refused = server.command("up", "--bind", server.address)

    assert refused.returncode == 2
    assert "DOCKERCOMP_MONGOD_CACHE_GB must be a number" in refused.stderr


def test_without_the_server_extra_one_sentence_says_which(server: Server) -> None:
    code = "import sys; sys.modules['pymongo'] = None; from source_server.cli import main; main(['up'])"

    refused = subprocess.run([sys.executable, "-c", code], env=server.env, capture_output=True, text=True)

    sentence = "dockercomp-server needs the server extra: pip install 'dockercomp[server]'"
    assert (refused.returncode, refused.stderr) == (2, f"Error: {sentence}\n")


def test_a_part_that_dies_at_once_again_and_again_is_started_less_and_less_often(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    part = Command("flaky", ["/bin/sh", "-c", 'printf x >>"$0"', str(starts)], env=lambda: os.environ)
    deadline = time.monotonic() + 3.5
    policy = RestartPolicy(first_s=0.2, cap_s=60.0)

    Supervisor([part], stopping=lambda: time.monotonic() > deadline, policy=policy).run()

    # It waits 0.2, 0.4, 0.8, 1.6 and 3.2 s; without the growth it would be a dozen starts and more.
    assert 2 <= len(starts.read_text()) <= 5


def test_an_errand_is_broken_off_when_the_server_is_to_stop() -> None:
    errand = Errand("long", [sys.executable, "-c", "import time; time.sleep(600)"], env=lambda: os.environ)
    deadline = time.monotonic() + 0.5

    errand.start(stopping=lambda: time.monotonic() > deadline)

    assert time.monotonic() < deadline + 60


def test_a_command_that_ignores_sigterm_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600']); open(sys.argv[1], 'w').write(str(child.pid) + '\\n')\n"
        "time.sleep(600)"
    )
    note = tmp_path / "pid"
    argv = [sys.executable, "-c", code, str(note)]
    part = Command("stubborn", argv, env=lambda: os.environ, grace_s=0.2)
    part.start()
    eventually(lambda: note.exists() and note.read_text().endswith("\n"))

    part.stop()

    assert not part.alive()
    eventually(lambda: not runs(int(note.read_text())))


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with (
        pytest.raises(CannotStart, match="cannot be used: "),
        ServerHome(tmp_path / "file" / "server").held(),
    ):
        pass


class environment_of:
    """Let this process have the server's environment for a while, as an operator's shell would."""

    def __init__(self, server: Server) -> None:
        self._env = server.env

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.update(self._env)

    def __exit__(self, *_: object) -> None:
        os.environ.clear()
        os.environ.update(self._before)


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


def environment(place: Path) -> bytes:
    try:
        return (place / "environ").read_bytes() if runs(int(place.name)) else b""
    except OSError:
        return b""


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def parent_is_up(server: Server, pid: int) -> bool:
    runner = server.home.find_runner()
    return runner is not None and parent_of(pid) == runner.pid


def runs(pid: int) -> bool:
    """Whether the process does more than wait for its parent to notice that it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
