"""The whole client with runtime sandbox, as a process of its own, between a small server and a scripted launcher."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from fake_server import Server, until

from client_container.launcher.line.wire import REQUEST_BYTES, encode_frame, read_frame

IMAGE = "sha256:" + "4f" * 32
POLICY = {"projects": ["sums"], "shares": {"sums": 2.0}, "containers": 1, "cpus": 1.0, "memory": 2**29}
END = {
    "event": "end",
    "cause": None,
    "exit_code": 0,
    "signal": None,
    "cpu_s": 0.1,
    "ran_s": 0.2,
    "image": IMAGE,
    "files": [],
    "note": "",
}


class Launcher:
    """Answers each verb with the events in `says`, whatever is asked."""

    def __init__(self, path):
        self.heard = []
        self.says = {
            "stats": [
                {
                    "event": "end",
                    "paused": False,
                    "why": "",
                    "policy": POLICY,
                    "self_test": {"verdict": "passed", "at": None},
                    "slot": 0,
                }
            ],
            "pull": [{"event": "end", "image": IMAGE}],
            "run": [
                {"event": "started", "container": "c", "image": IMAGE, "at": "2026-11-22T12:00:00.000Z"},
                {"event": "stdout", "data": "NDIK"},
                END,
            ],
            "kill": [{"event": "end", "killed": True}],
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def pause(self, paused):
        self.says["stats"] = [{**self.says["stats"][0], "paused": paused, "why": "On battery." * paused}]

    def of(self, verb):
        return [request for request in self.heard if request["verb"] == verb]

    def stop(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                request = json.loads(read_frame(connection, most=REQUEST_BYTES, seconds=10))
                self.heard.append(request)
                with contextlib.suppress(OSError):
                    connection.sendall(b"".join(map(encode_frame, self.says[request["verb"]])))


@pytest.fixture
def server():
    peer = Server()
    peer.beat_s = 0.2
    peer.job = {**peer.job, "image": IMAGE, "action": [], "project": "sums", "task": "t"}
    peer.start()
    yield peer
    peer.released.set()
    peer.stop()


@pytest.fixture
def launcher(tmp_path):
    made = Launcher(tmp_path / "launcher.sock")
    yield made
    made.stop()


@pytest.fixture
def client(server, launcher, tmp_path):
    (tmp_path / "key").write_text("account-key")
    env = {
        "PATH": os.environ["PATH"],
        "DOCKERCOMP_SERVER": f"http://127.0.0.1:{server.port}",
        "DOCKERCOMP_KEY_FILE": str(tmp_path / "key"),
        "DOCKERCOMP_HOME": str(tmp_path / "home"),
        "DOCKERCOMP_RUNTIME": "sandbox",
        "DOCKERCOMP_LAUNCHER_SOCKET": str(tmp_path / "launcher.sock"),
        "DOCKERCOMP_MEMORY_MB": "512",
    }
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "client_container", "--verbose"], env=env, stderr=log
        )
    yield process
    process.terminate()
    assert process.wait(60) == 0
    print((tmp_path / "log").read_text())


def last_beat(server):
    beats = server.of("/heartbeat")
    return beats[-1].body if beats else {}


def released(server):
    return [chunk for request in server.of("/release") for chunk in request.body["chunks"]]


def test_a_chunk_is_run_by_the_launcher_and_delivered(server, launcher, client):
    server.offer("c.0", "c.1", data='{"a": 1}')

    until(lambda: len(server.stored) == 2)

    assert server.stored["c.0"]["stdout"] == "42\n"
    assert (server.stored["c.0"]["runtime"], server.stored["c.0"]["image"]) == ("sandbox", IMAGE)
    run = launcher.of("run")[0]
    assert run["chunk"] == {"id": "c.0", "run": 0, "input": '{"a": 1}'}
    assert (run["manifest"]["project"], run["manifest"]["image"]) == ("sums", IMAGE)
    assert len({request["token"] for request in launcher.of("run")}) == 2
    assert len(launcher.of("pull")) == 1  # before the first


def test_the_server_hears_the_volunteers_policy_and_the_self_tests_verdict(server, client):
    until(lambda: server.of("/containers"))

    said = server.of("/containers")[0].body
    assert said["policy"] == {"projects": ["sums"], "shares": {"sums": 2.0}}
    assert (said["self_test"], said["runtimes"]) == ("passed", ["sandbox"])
    assert said["resources"]["memory_mb"] == 512


def test_a_paused_host_beats_paused_and_claims_nothing_until_it_is_resumed(server, launcher, client):
    until(lambda: last_beat(server).get("paused") is False)
    launcher.pause(True)
    until(lambda: last_beat(server).get("paused") is True)
    claims = len(server.of("/next"))
    beats = len(server.of("/heartbeat"))
    server.offer("c.0")

    until(lambda: len(server.of("/heartbeat")) > beats + 5)
    assert len(server.of("/next")) <= claims + 1 and not server.stored
    launcher.pause(False)

    until(lambda: "c.0" in server.stored)
    assert last_beat(server)["paused"] is False


@pytest.mark.parametrize(
    "answer",
    [
        {**END, "cause": "given_back", "exit_code": None},
        {"event": "end", "refused": "On battery.", "code": "paused"},
    ],
    ids=["under way", "refused"],
)
def test_a_chunk_that_the_host_gives_back_is_released_and_no_error(server, launcher, client, answer):
    until(lambda: server.of("/containers"))
    launcher.says["run"] = [answer]
    server.offer("c.0")

    until(lambda: "c.0" in released(server))

    assert not server.stored
    until(lambda: not last_beat(server).get("held"))


def test_an_image_that_cannot_run_here_is_told_with_the_next_beat(server, launcher, client):
    until(lambda: server.of("/containers"))
    launcher.says["run"] = [{"event": "end", "refused": "image too large here", "code": "image_too_large"}]
    server.offer("c.0")

    until(lambda: last_beat(server).get("cannot") == {IMAGE: "image too large here"})

    assert released(server) == ["c.0"] and not server.stored


def test_an_engine_that_broke_is_reported_as_an_error_of_the_host(server, launcher, client):
    until(lambda: server.of("/containers"))
    launcher.says["run"] = [{**END, "cause": "engine", "note": "No Docker engine answers."}]
    server.offer("c.0")

    until(lambda: "c.0" in server.stored)

    assert server.stored["c.0"]["outcome"] == "engine"
    assert "No Docker engine answers." in server.stored["c.0"]["stderr_tail"]
