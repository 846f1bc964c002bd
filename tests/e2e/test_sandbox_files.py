"""Files between a server and a job: a whole client, the launcher's door, and containers of a real engine."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from fake_server import clients_of, served, until
from launching import wait_for
from sandboxes import POLICY, Host, lent_host

from client_container.blobs import Blobs
from client_container.connection import ServerConnection
from client_container.holdings import Holdings
from client_container.launcher.jobs.door import Door
from client_container.launcher.line.wire import Files
from client_container.membership import Membership
from client_container.protocol import Chunk, Introduction, Job
from client_container.runtime import Halt
from client_container.runtime.errand import Errand

pytestmark = pytest.mark.docker

MB = 1_000_000


class Site:
    """A lent host whose slot 0 is ours, and a server."""

    def __init__(self, host: Host, server: Any, start: Callable[..., Any]) -> None:
        self.host, self.server, self._start = host, server, start
        self.home = host.slots.folder(0)
        self.door = self.open_door()
        server.job |= {"image": host.image, "project": "sums", "task": "t", "timeout_s": 100.0}

    def open_door(self) -> Door:
        door = Door(self.host.slots, self.host.jobs, self.host.images, lambda slot: {"paused": False})
        door.open(0)
        return door

    def client(self) -> Any:
        return self._start(
            DOCKERCOMP_HOME=str(self.home),
            DOCKERCOMP_RUNTIME="sandbox",
            DOCKERCOMP_LAUNCHER_SOCKET=str(self.home / "launcher.sock"),
        )

    def job(self, *action: str, **more: Any) -> None:
        self.server.job |= {"action": ["/hostile", *action], **more}

    def result(self, chunk: str) -> Any:
        until(lambda: chunk in self.server.stored, within_s=90)
        return self.server.stored.pop(chunk)

    def kept(self) -> list[Path]:
        return list((self.host.home / "slots" / "cache").glob("*/*"))

    def restart_launcher(self) -> None:
        self.host.jobs.close()
        self.door.stop()
        self.host.jobs = self.host.launch()
        self.host.jobs.sweep()
        self.door = self.open_door()


@pytest.fixture
def site(engine: docker.DockerClient, hostile_image: str, tmp_path: Path) -> Iterator[Site]:
    with (
        lent_host(engine, hostile_image, client_uid=os.geteuid()) as host,
        served() as server,
        clients_of(server, tmp_path) as start,
    ):
        site = Site(host, server, start)
        yield site
        site.door.stop()


def content(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def test_files_of_the_task_come_once_and_those_of_each_chunk_with_it(site: Site) -> None:
    code = site.server.file("lib/code.py", b"some code")
    site.job("show", "/in/{what}", files=[code])
    for n in range(3):
        own = site.server.file("part/own", f"own of {n}".encode())
        site.server.offer(f"t.{n}", data='{"what": "lib/code.py"}', files=[own])
        site.server.offer(f"o.{n}", data='{"what": "part/own"}', files=[own])

    site.client()

    assert [site.result(f"t.{n}")["stdout"] for n in range(3)] == ["some code"] * 3
    assert [site.result(f"o.{n}")["stdout"] for n in range(3)] == [f"own of {n}" for n in range(3)]
    assert site.server.sent[code["sha256"]] == len(b"some code")
    assert not list((site.home / "files").iterdir()) and len(site.kept()) == 4


def test_a_large_input_reaches_stdin_and_its_file_and_fills_in_the_command_line(site: Site) -> None:
    text = json.dumps({"file": "/in/chunk.json", "x": "y" * 150_000}).encode()
    given = {"sha256": site.server.give(text), "bytes": len(text)}
    for name, action in (("t.1", ["cat"]), ("t.2", ["show", "{file}"])):
        site.job(*action)
        site.server.offer(name, data=None, input_file=given)
        if name == "t.1":
            site.client()
        assert site.result(name)["stdout"] == text.decode()


def test_an_input_larger_than_what_may_be_filled_in_is_an_error_of_the_attempt(site: Site) -> None:
    text = json.dumps({"file": "/in/chunk.json", "x": "y" * 5_000_000}).encode()
    site.job("show", "{file}")
    site.server.offer("t.1", data=None, input_file={"sha256": site.server.give(text), "bytes": len(text)})

    site.client()

    said = site.result("t.1")
    assert said["outcome"] == "engine" and "4 MiB" in said["stderr_tail"]


def test_files_that_the_job_asked_for_reach_the_server_and_no_others(site: Site) -> None:
    site.job("make", "/out/big", "20000000", outputs=["big"])
    site.server.offer("t.1")
    site.client()

    said = site.result("t.1")

    [file] = said["files"]
    assert (file["name"], file["bytes"], said["stdout"]) == ("big", 20_000_000, "made\n")
    assert hashlib.sha256(site.server.blobs[file["sha256"]]).hexdigest() == file["sha256"]
    site.job("litter", outputs=["**"])
    site.server.offer("t.2")
    said = site.result("t.2")
    assert "Left out of /out" in said["stderr_tail"]
    assert all(".." not in one["name"] and "passwd" not in one["name"] for one in said.get("files", []))
    site.job("make", "/out/other", "10", outputs=["big"])
    site.server.offer("t.3")
    assert "files" not in site.result("t.3")
    until(lambda: not list((site.home / "files").iterdir()))
    until(lambda: not list((site.home / "spool" / "files").iterdir()))


class Neighbour:
    """The line of another client of this host, without a process of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def answer(self, request: Any, *, patience_s: float = 0.0) -> dict[str, Any]:
        cache = self.site.host.jobs.cache
        if isinstance(request, Files):
            return vars(cache.look(1, request.want, request.project))
        return {"kept": cache.keep(1, request.sha256, request.project)}


def test_two_clients_that_need_the_same_file_fetch_it_once(site: Site) -> None:
    big = site.server.file("big", content(50 * MB))
    site.host.policy = replace(POLICY, disk=2**30)
    site.server.piece_s = 0.001
    site.job("cat", files=[big])
    site.server.offer("t.1")
    connection = ServerConnection(f"http://127.0.0.1:{site.server.port}", "account-key")
    who = Introduction(container=str(uuid.uuid4()), host="h")
    blobs = Blobs(connection, Membership(connection, who, Holdings()))
    errand = Errand(Neighbour(site), site.host.slots.folder(1) / "files", blobs)  # type: ignore[arg-type]
    job = Job(id="t/main", image=None, action=(), env={}, timeout_s=1, rows=None, project="sums")
    files = Chunk.from_message(
        {"id": "t.9", "run": 0, "input": "1", "job": "t/main", "ticket": "ticket-t.9", "files": [big]},
        jobs={"t/main": job},
        token="T",
    )
    reader, writer = os.pipe()
    neighbour = threading.Thread(target=errand.run, args=(files, Halt(), reader))

    site.client()
    neighbour.start()
    assert site.result("t.1")["stdout"] == "1"
    neighbour.join(60)

    assert not neighbour.is_alive()
    assert site.server.sent[big["sha256"]] == 50 * MB
    assert len(site.kept()) == 1
    os.close(reader)
    os.close(writer)


def test_a_file_that_vanishes_while_its_job_starts_is_fetched_once_more(site: Site) -> None:
    file = site.server.file("f", b"data")
    site.job("show", "/in/f", files=[file])
    site.server.offer("t.1")
    site.client()
    assert site.result("t.1")["stdout"] == "data"
    cache, gone = site.host.jobs.cache, []
    look = cache.look

    def look_and_lose(*arguments: Any) -> Any:
        found = look(*arguments)
        if found.here and not gone:
            gone.extend(site.kept())
            gone[0].unlink()
        return found

    cache.look = look_and_lose  # type: ignore[method-assign]
    site.server.offer("t.2")

    assert site.result("t.2")["stdout"] == "data"
    assert gone and site.server.sent[file["sha256"]] == 2 * len(b"data")


def test_a_client_killed_while_it_fetches_goes_on_where_it_was(site: Site) -> None:
    big = site.server.file("big", content(30 * MB))
    site.host.policy = replace(POLICY, disk=2**30)
    site.job("cat", files=[big])
    site.server.offer("t.1")
    site.server.piece_s = 0.01
    first = site.client()
    until(lambda: site.server.sent[big["sha256"]] > 15 * MB)

    first.kill()
    first.wait()
    site.server.piece_s = 0.0
    site.server.offer("t.1")
    site.client()

    assert site.result("t.1")["outcome"] == "ok"
    assert site.server.sent[big["sha256"]] < 40 * MB


def test_what_is_too_large_to_be_kept_comes_all_the_same_and_goes_with_its_chunk(site: Site) -> None:
    file = site.server.file("f", content(3 * MB))
    site.host.jobs.cache._limit = lambda: 2 * MB
    site.job("cat", files=[file])
    site.server.offer("t.1", "t.2")

    site.client()

    assert site.result("t.1")["outcome"] == site.result("t.2")["outcome"] == "ok"
    assert site.server.sent[file["sha256"]] == 6 * MB
    assert not site.kept() and not list((site.home / "files").iterdir())


def test_limits_that_the_job_asks_for_hold(site: Site) -> None:
    site.job("show", "/proc/self/limits", disk_mb=7, memory_mb=64, cpus=0.5)
    site.server.offer("t.1")
    site.client()

    limits = site.result("t.1")["stdout"]

    [line] = [line for line in limits.splitlines() if line.startswith("Max file size")]
    assert line.split()[3:5] == [str(7 * 2**20)] * 2
    site.job("hog")
    site.server.offer("t.2")
    assert site.result("t.2")["outcome"] == "oom"


def begun(site: Site) -> None:
    """The program wrote its checkpoint, and goes on."""
    wait_for(lambda: list((site.host.home / "slots" / "jobs").glob("*/checkpoint/n")))


def test_the_next_attempt_goes_on_from_the_checkpoint_after_a_pause_and_a_give_back(site: Site) -> None:
    site.job("count", "1")
    site.server.offer("t.1")
    site.client()
    begun(site)
    site.host.jobs.freeze()
    wait_for(lambda: all(one.frozen for one in site.host.jobs.running()))

    site.host.jobs.give_back()
    until(lambda: site.server.of("/release"))
    site.server.offer("t.1")

    assert site.result("t.1")["stdout"] == "1\n"
    site.server.offer("t.1")
    begun(site)  # it had its result: the next attempt begins anew


def test_the_same_attempt_goes_on_from_the_checkpoint_after_a_restart_of_the_launcher(site: Site) -> None:
    site.job("count", "1")
    site.server.offer("t.1")
    site.client()
    begun(site)

    site.restart_launcher()

    assert site.result("t.1")["stdout"] == "1\n"


def test_the_next_attempt_goes_on_from_the_checkpoint_after_everything_was_killed(
    site: Site, engine: docker.DockerClient
) -> None:
    site.job("count", "1")
    site.server.offer("t.1")
    client = site.client()
    begun(site)
    client.kill()
    client.wait()
    site.door.stop()
    old = site.host.jobs

    for container in site.host.containers(engine):  # what a machine that loses its power does, more or less
        container.remove(force=True)
    wait_for(lambda: not old.running())
    site.host.jobs = site.host.launch()
    site.host.jobs.sweep()
    site.door = site.open_door()
    site.server.offer("t.1")
    site.client()

    assert site.result("t.1")["stdout"] == "1\n"


def test_a_chunk_that_is_run_anew_does_not_go_on_from_the_run_before(site: Site) -> None:
    site.job("count", "1")
    site.server.offer("t.1")
    site.client()
    begun(site)
    site.host.jobs.give_back()
    until(lambda: site.server.of("/release"))

    site.job("count", "0")
    site.server.offer("t.1", run=1)

    assert site.result("t.1")["stdout"] == "0\n"
