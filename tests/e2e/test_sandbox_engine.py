"""A Docker engine that dies or hangs under a job: an engine of the test's own, which may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from launching import wait_for
from parts import require
from sandboxes import POLICY, Host, lent_host, make_hostile_image, make_odd_image

pytestmark = pytest.mark.docker

PATH = f"/usr/sbin:/sbin:/usr/bin:{os.environ.get('PATH', '')}"


class OwnEngine:
    """A dockerd without any network, in namespaces of its own; its containerd and containers survive its death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "infinity"])
        wait_for(lambda: Path(f"/proc/{self._holder.pid}/comm").read_text() == "sleep\n")

    def start(self) -> None:
        """Start it, in the same namespaces as before: what it mounted there is there still."""
        command = ["nsenter", "-t", str(self._holder.pid), "--net", "--mount", "dockerd"]
        command += ["-H", self.url, "--bridge=none", "--iptables=false"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        command += ["-p", f"{self.folder}/pid", "--live-restore"]
        for left in ("pid", "exec/containerd/containerd.pid"):  # a zombie would be taken for a living one
            (self.folder / left).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PATH": PATH}
            )
        wait_for(self._answers)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)  # nsenter has become dockerd
        if number == signal.SIGKILL:
            self._process.wait()

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=30)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=60)
        self._holder.kill()
        self._holder.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(docker.errors.DockerException, OSError):
            client = docker.DockerClient(base_url=self.url, timeout=5)
            client.ping()
            client.close()
            return True
        return False


@pytest.fixture
def own_engine() -> Iterator[OwnEngine]:
    if shutil.which("dockerd", path=PATH) is None or os.geteuid() != 0:
        require("an engine of the test's own needs root and dockerd")
    folder = Path(tempfile.mkdtemp(prefix="dct-", dir="/var/tmp"))
    engine = OwnEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        print((folder / "log").read_text()[-5000:])
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def host(own_engine: OwnEngine, tmp_path: Path) -> Iterator[Host]:
    client = own_engine.client()
    image = make_hostile_image(client, tmp_path)
    with lent_host(client, image, engine_at=own_engine.url) as host:
        yield host


def alive(marked: str) -> bool:
    """Whether a process with this in its command line lives."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marked.encode() in path.read_bytes():
                return True
    return False


@pytest.mark.parametrize("file", ["etc/passwd", "etc/group"])
def test_an_image_that_would_make_the_engine_wait_for_ever_is_never_started(
    own_engine: OwnEngine, file: str
) -> None:
    client = own_engine.client()
    image = make_odd_image(client, {file: tarfile.FIFOTYPE})

    with lent_host(client, image, engine_at=own_engine.url) as host:
        began = time.monotonic()
        end = host.run("cat").end
        assert end.get("code") == "not_allowed" and "no plain file" in end["refused"], end
        assert time.monotonic() - began < 30 and not host.containers(client)


def test_an_engine_that_has_no_graphics_processors_to_give_says_so_in_that_attempt_alone(
    own_engine: OwnEngine, host: Host
) -> None:
    if shutil.which("nvidia-container-cli"):
        pytest.skip("this engine might have some")
    host.policy = replace(POLICY, gpu=True)

    end, other = host.run("cat", gpu=True).end, host.run("cat").end

    assert end["cause"] == "engine"
    assert end["note"].startswith(
        "This host cannot hand its graphics processors to the job: The Docker engine refused"
    )
    assert "nvidia" in end["note"] and "gpu" in end["note"]
    assert (other["cause"], other["exit_code"]) == (None, 0)


def test_an_engine_killed_under_a_job_is_told_and_nothing_goes_on_running(
    host: Host, own_engine: OwnEngine
) -> None:
    seconds = "86399"
    told, thread = host.start(host.request("sleep", seconds, timeout_s=3600))
    wait_for(lambda: alive(f"sleep\0{seconds}"))

    own_engine.send(signal.SIGKILL)
    thread.join(60)

    assert told.end["cause"] == "engine" and "engine" in told.end["note"].lower()
    wait_for(lambda: not alive(f"sleep\0{seconds}"))
    assert host.run("cat").end.get("cause", "engine") == "engine"

    own_engine.start()
    host.jobs.sweep()
    assert not host.containers(own_engine.client())
    assert host.run("cat", data="41").stdout == "41"


def test_an_engine_that_hangs_does_not_outlast_a_jobs_timeout_for_ever(
    host: Host, own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.jobs._around.engine._api.timeout = 3  # else a minute
    told, thread = host.start(host.request("sleep", "86398", timeout_s=1.0))
    wait_for(lambda: told.started)
    time.sleep(0.3)

    own_engine.send(signal.SIGSTOP)
    try:
        thread.join(60)
        assert not thread.is_alive()
        assert told.end["cause"] in ("timeout", "engine")
        wait_for(lambda: not alive("sleep\x0086398"))
    finally:
        own_engine.send(signal.SIGCONT)
    wait_for(lambda: host.jobs.sweep() or not host.containers(own_engine.client()))
