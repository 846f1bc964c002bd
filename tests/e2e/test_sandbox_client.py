"""The client's sandbox runtime and the launcher's door, with a real engine behind them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import docker
import pytest
from launching import wait_for
from sandboxes import Host, lent_host

from client_container.launcher.jobs.door import Door
from client_container.launcher.line.wire import EVENT_BYTES, encode_frame, read_frame
from client_container.protocol import Chunk, Job
from client_container.runtime import CannotRun, GivenBack, Halt, HostBroken, JobHalted
from client_container.runtime.launcher_line import LauncherLine
from client_container.runtime.sandbox import SandboxRuntime

pytestmark = pytest.mark.docker


class Site:
    """A host with an open door and a client's runtime before it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.stats: dict[str, Any] = {"paused": False, "why": ""}
        self.fetched: list[Job] = []
        self.archive = b"archive"
        self.door = self.open_door()
        line = LauncherLine(host.slots.folder(0) / "launcher.sock")
        self.runtime = SandboxRuntime(
            line, files=host.slots.folder(0) / "files", fetch=self.fetch, blobs=self, away_s=20.0
        )

    def open_door(self) -> Door:
        door = Door(self.host.slots, self.host.jobs, self.host.images, lambda slot: self.stats)
        door.open(0)
        return door

    def fetch(self, job: Job) -> str:
        self.fetched.append(job)
        return self.host.give(0, self.archive)

    def chunk(self, *action: str, data: str = "41", **job: Any) -> Chunk:
        whole: dict[str, Any] = {"image": self.host.image, "env": {}, "timeout_s": 30.0, "rows": None, **job}
        made = Job(id="t/main", action=("/hostile", *action), project="sums", task="t", **whole)
        return Chunk(id="t.1", run=0, input=data, job=made, ticket="", token="")

    def execute(self, *action: str, **rest: Any) -> Any:
        return self.runtime.execute(self.chunk(*action, **rest), Halt())


@pytest.fixture
def site(engine: docker.DockerClient, hostile_image: str) -> Iterator[Site]:
    # The tests are the client, and the door opens to the client's uid alone.
    with lent_host(engine, hostile_image, client_uid=os.geteuid()) as host:
        site = Site(host)
        yield site
        site.door.stop()


def test_a_chunk_is_executed_and_reported_as_every_runtime_does(site: Site) -> None:
    execution = site.execute("cat")

    assert (execution.outcome, execution.stdout, execution.exit_code) == ("ok", "41", 0)
    assert (execution.runtime, execution.image) == ("sandbox", site.host.image)
    assert 0 < (execution.ended - execution.started).total_seconds() < 10
    assert site.execute("exit", "65").outcome == "failed"
    assert site.execute("raise", "11").signal == 11
    assert site.execute("sleep", "9", timeout_s=0.5).outcome == "timeout"
    assert site.execute("hog").outcome == "oom"
    full = site.execute("fill", "/out")
    assert full.outcome == "output_limit" and "MiB" in full.stderr_tail
    assert site.execute("cat", rows=2, data='{"rows": [1, 2]}').outcome == "failed"
    assert site.execute("cat", image=None).outcome == "engine"


def test_what_a_job_left_in_out_does_not_pile_up(site: Site) -> None:
    site.execute("traces")

    assert not list((site.host.slots.folder(0) / "files").iterdir())


def test_a_paused_host_gives_the_chunk_back_and_says_so(site: Site) -> None:
    assert not site.runtime.standing().paused
    site.stats, site.host.why = {"paused": True, "why": "On battery."}, "On battery."

    with pytest.raises(GivenBack, match="On battery"):
        site.execute("cat")
    assert wait_for(lambda: site.runtime.standing().paused)
    assert site.runtime.standing().why == "On battery."


def test_a_chunk_that_is_given_back_under_way_is_nobodys_error(site: Site) -> None:
    threading.Timer(1.5, site.host.jobs.give_back).start()

    with pytest.raises(GivenBack):
        site.execute("sleep", "60")


def test_a_halt_kills_the_job_at_once(site: Site) -> None:
    halt = Halt()
    threading.Timer(1.5, halt.set).start()
    began = time.monotonic()

    with pytest.raises(JobHalted):
        site.runtime.execute(site.chunk("sleep", "60"), halt)

    assert time.monotonic() - began < 15
    wait_for(lambda: not site.host.jobs.running())


def test_an_image_is_brought_before_the_first_chunk(site: Site, hostile_image: str) -> None:
    site.host.images.missing.add(hostile_image)

    assert site.execute("cat").outcome == "ok"
    assert [job.image for job in site.fetched] == [hostile_image]
    site.host.images.missing.add(hostile_image)  # removed to make room
    assert site.execute("cat").outcome == "ok"
    assert len(site.fetched) == 2
    assert not list((site.host.slots.folder(0) / "files").iterdir())


def test_an_image_that_cannot_run_here_is_told_to_the_server(site: Site, hostile_image: str) -> None:
    site.host.policy = replace(site.host.policy, projects=("digits",))

    with pytest.raises(CannotRun) as cannot:
        site.execute("cat")

    assert cannot.value.image == hostile_image
    assert site.runtime.standing().cannot == {
        hostile_image: "This host's owner does not run the project 'sums'."
    }


def test_a_bad_archive_is_an_error_of_the_attempt(site: Site, hostile_image: str) -> None:
    site.host.images.missing.add(hostile_image)
    site.archive = b"no such thing"

    assert site.execute("cat").outcome == "engine"


def test_a_launcher_that_is_restarted_is_waited_for(site: Site) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(site.execute("sleep", "3")))
    thread.start()
    wait_for(site.host.jobs.running)

    site.host.jobs.close()
    site.door.stop()
    time.sleep(1)
    site.host.jobs = site.host.launch()
    site.host.jobs.sweep()
    site.door = site.open_door()
    thread.join(30)

    assert [result.outcome for result in results] == ["ok"]


def test_a_launcher_that_stays_away_makes_the_host_a_broken_one(site: Site) -> None:
    site.door.stop()
    site.runtime._away_s = 1.0

    with pytest.raises(HostBroken, match="does not answer"):
        site.execute("cat")
    assert not site.runtime.standing().paused


def test_the_socket_is_the_clients_alone_and_strangers_hear_nothing(
    engine: docker.DockerClient, hostile_image: str
) -> None:
    with lent_host(engine, hostile_image) as host:
        door = host.open_door()
        path = host.slots.folder(0) / "launcher.sock"
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (host.first_uid, 0o600)

        with socket.socket(socket.AF_UNIX) as stranger:  # root may connect, and is not the client
            stranger.connect(str(path))
            stranger.settimeout(10)
            with contextlib.suppress(OSError):
                stranger.sendall(encode_frame({"v": 1, "verb": "stats"}))
            assert _heard(stranger) == b""
        door.stop()
        assert not path.exists()


def _heard(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def test_a_ninth_connection_is_closed_and_a_silent_one_is_dropped(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("client_container.launcher.jobs.door.REQUEST_S", 1.0)
    path = str(site.host.slots.folder(0) / "launcher.sock")
    held = []
    for _ in range(9):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.settimeout(10)
        held.append(connection)
        time.sleep(0.05)

    assert _heard(held[8]) == b""  # at once
    assert all(_heard(one) == b"" for one in held[:8])  # when its time was up
    for one in held:
        one.close()
    assert site.execute("cat").outcome == "ok"


def test_whatever_is_sent_the_door_answers_with_a_sentence_and_stays_open(site: Site) -> None:
    path = str(site.host.slots.folder(0) / "launcher.sock")
    for body in (b"", b"\xff", b"[]", b"{}", b'{"v":1,"verb":"run"}', b"[" * 100_000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(len(body).to_bytes(4, "big") + body)
            answer = json.loads(read_frame(connection, most=EVENT_BYTES, seconds=10))
            assert answer["code"] == "bad_request" and answer["refused"].endswith(".")
    assert site.execute("cat").outcome == "ok"
