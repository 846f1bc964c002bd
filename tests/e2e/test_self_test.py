"""The self-test on a real engine: all is well, and each wall that is missing is noticed."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from isolated import DNS, METADATA, SERVER, SERVER_PORT, Machine, isolated_machine

from client_container.launcher.clients.plan import Front, Plan, own_labels
from client_container.launcher.engine import Engine
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.self_test import run as selftest
from client_container.launcher.self_test.run import SelfTest
from client_container.launcher.self_test.schedule import Verdict
from client_container.launcher.wall.network import Wall

pytestmark = pytest.mark.docker

Config = dict[str, Any]


@dataclass
class Host:
    machine: Machine
    test: SelfTest
    wall: Wall

    def run(self) -> Verdict:
        return self.machine.home.call(self.test.run)

    def failed(self) -> set[str]:
        """Names of the checks that fail."""
        verdict = self.run()
        found = {check["name"] for check in verdict.checks if not check["ok"]}
        assert (verdict.verdict == "failed") == bool(found)
        return found


@pytest.fixture(scope="module")
def host(engine: docker.DockerClient, client_image: str) -> Iterator[Host]:
    with isolated_machine() as machine, pytest.MonkeyPatch.context() as patched:
        machine.client.images.load(b"".join(engine.images.get(client_image).save()))
        patched.setenv("DOCKER_HOST", machine.socket_url)
        machine.listen(machine.lan, SERVER, SERVER_PORT)
        machine.listen(machine.lan, METADATA, 80)
        labels = own_labels("self", str(uuid.uuid4()))
        server = f"http://{SERVER}:{SERVER_PORT}"
        wall = Wall(engine=Engine(), instance="self", labels=labels, server=server, servers=lambda: [DNS])
        plan = Plan(
            instance="self",
            host_id=labels["dockercomp.host"],
            server=server,
            key_digest="0" * 64,
            image=client_image,
            memory=96 * 2**20,
            cpus=0.5,
            front=Front(slots=str(machine.state / "slots"), network="none"),
        )
        yield Host(machine, SelfTest(engine=JobEngine(), wall=wall, plan=plan, home=machine.state), wall)
        machine.home.call(wall.remove)


def test_a_sound_host_passes_in_time_and_nothing_is_left_behind(host: Host) -> None:
    host.machine.home.call(host.wall.ensure)
    before = host.machine.rules()
    began = time.monotonic()

    verdict = host.run()

    took = time.monotonic() - began
    assert [check for check in verdict.checks if not check["ok"]] == []
    assert verdict.verdict == "passed"
    assert len(verdict.checks) > 20
    assert took < selftest.LIMIT_S
    assert host.machine.client.containers.list(all=True) == []
    assert host.machine.client.volumes.list() == []
    assert list((host.machine.state / "slots").iterdir()) == []
    assert host.machine.rules() == before
    said = {check["name"]: check["said"] for check in verdict.checks}
    assert said["client: the metadata address"].endswith("it answers without the wall")
    assert said["client: the source server"] == "reached"


@pytest.mark.parametrize(
    ("gpus", "said"), [(["NVIDIA A100"], "jobs cannot have them"), ([], "no graphics processor of NVIDIA's")]
)
def test_graphics_processors_that_jobs_cannot_have_are_told_and_all_else_goes_on(
    host: Host, monkeypatch: pytest.MonkeyPatch, gpus: list[str], said: str
) -> None:
    if shutil.which("nvidia-container-cli"):
        pytest.skip("this engine might have some")
    monkeypatch.setattr(host.test, "_gpus", gpus)

    verdict = host.run()

    [check] = [one for one in verdict.checks if one["name"] == "job: graphics processors"]
    assert verdict.verdict == "passed" and verdict.tried_gpus and not verdict.gpus_work
    assert not check["ok"] and said in check["said"]
    assert host.machine.client.containers.list(all=True) == []


def spoiled(make: Callable[..., Config], **changes: Any) -> Callable[..., Config]:
    """A maker of configurations in which some flags of HostConfig are changed, or taken away (None)."""

    def config(*arguments: Any) -> Config:
        made = make(*arguments)
        host_config = {**made["HostConfig"], **changes.get("HostConfig", {})}
        kept = {name: value for name, value in host_config.items() if value is not None}
        top = {name: value for name, value in changes.items() if name != "HostConfig"}
        return {**made, **top, "HostConfig": kept}

    return config


NO_FLAGS = {
    "NetworkMode": "bridge",
    "ReadonlyRootfs": False,
    "CapDrop": None,
    "SecurityOpt": ["seccomp=unconfined"],
    "PidsLimit": None,
    "Memory": None,
    "MemorySwap": None,
    "CgroupParent": "",
    "Ulimits": [],
    "Tmpfs": {"/tmp": "rw,exec"},
}


def test_each_wall_that_a_job_or_a_client_lacks_is_noticed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = spoiled(selftest.job_config, HostConfig=NO_FLAGS)

    def with_socket(*arguments: Any) -> Config:
        config = make(*arguments)
        mount = {
            "Type": "bind",
            "Source": str(host.machine.folder / "docker.sock"),
            "Target": "/run/docker.sock",
        }
        return {
            **config,
            "HostConfig": {**config["HostConfig"], "Mounts": [*config["HostConfig"]["Mounts"], mount]},
        }

    monkeypatch.setattr(selftest, "job_config", with_socket)
    monkeypatch.setattr(selftest, "client_config", spoiled(selftest.client_config, HostConfig=NO_FLAGS))

    failed = host.failed()

    forced = (
        "network",
        "sockets",
        "fork bomb",
        "open files",
        "file size",
        "memory",
        "limits of all together",
    )
    both = ("capabilities", "privileges", "seccomp", "root", "programs")
    assert failed >= {f"job: {name}" for name in (*forced, *both)}
    assert failed >= {f"client: {name}" for name in both}
    assert failed >= {
        "client: this machine's address on the bridge",
        "client: this machine's address in the network",
        "client: a container elsewhere",
        "client: the metadata address",
        "client: another client container",
    }
    # The engine leaves the uid as it is told, and the file system of the slots is not its affair.
    assert failed.isdisjoint({"job: user", "client: user", "disk of their own"})
