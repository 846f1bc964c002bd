"""What a machine says of itself, what its volunteer may add, and what the server makes of both."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from client_container import __main__ as client
from client_container.config import from_env
from client_container.identity import Identity
from client_container.launcher.clients.plan import Front, Plan, config_digest, container_config
from client_container.launcher.policy.file import parse_policy, render_policy
from client_container.launcher.policy.policy import BadPolicy, Policy
from client_container.machine import FACTS, has_devices, machine_labels, nvidia_gpus, without_gpus


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_says_its_release_its_memory_and_its_processors(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n')
    write(tmp_path, "proc/meminfo", "MemTotal:       24576000 kB\nMemFree: 1 kB\n")

    said = machine_labels(tmp_path)

    assert said["os"] == "linux" and said["os_release"] == "debian-12"
    assert said["total_memory_mb"] == 24000 and said["cores"] >= 1
    assert "gpu" not in said and said.keys() <= FACTS


def test_graphics_processors_count_where_their_driver_for_computing_is_there(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA A100\nIRQ: 1\n")
    write(tmp_path, "proc/driver/nvidia/gpus/0000:02:00.0/information", "Model: \t\t NVIDIA A100\n")
    write(tmp_path, "sys/class/drm/card0/device/vendor", "0x1002\n")
    write(tmp_path, "sys/class/drm/card1/device/vendor", "0x8086\n")
    write(tmp_path, "sys/class/drm/card0-DP-1/device/vendor", "0x1002\n")

    without = machine_labels(tmp_path)
    write(tmp_path, "dev/kfd", "")
    with_kfd = machine_labels(tmp_path)

    assert (without["gpu"], without["gpu_name"]) == (2, "NVIDIA A100")
    assert (with_kfd["gpu"], with_kfd["gpu_name"]) == (3, "NVIDIA A100, AMD")


def test_a_screen_alone_is_no_graphics_processor(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/drm/card0/device/vendor", "0x1234\n")
    write(tmp_path, "sys/class/drm/card1/device/vendor", "0x10de\n")

    assert "gpu" not in machine_labels(tmp_path)


def test_a_driver_without_its_device_is_what_a_container_sees(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: NVIDIA A100\n")
    hidden = has_devices(tmp_path)
    write(tmp_path, "dev/nvidiactl", "")

    assert not hidden and has_devices(tmp_path)
    assert nvidia_gpus(tmp_path) == ["NVIDIA A100"]
    assert without_gpus(machine_labels(tmp_path)).keys() == machine_labels(tmp_path).keys() - {
        "gpu",
        "gpu_name",
    }


def test_a_client_before_a_launcher_carries_the_label_only_by_the_launchers_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"arch": "x86_64", "gpu": 2, "gpu_name": "NVIDIA A100"}
    monkeypatch.setattr(client, "machine_labels", lambda: dict(seen))
    monkeypatch.setattr(client, "has_devices", lambda: True)  # what it sees itself is not asked for
    (tmp_path / "key").write_text("dca_x\n")
    own = {
        "DOCKERCOMP_SERVER": "http://192.0.2.1",
        "DOCKERCOMP_KEY_FILE": str(tmp_path / "key"),
        "DOCKERCOMP_HOME": str(tmp_path),
    }
    sandbox = {**own, "DOCKERCOMP_RUNTIME": "sandbox", "DOCKERCOMP_LAUNCHER_SOCKET": str(tmp_path / "s")}
    lent = {**sandbox, "DOCKERCOMP_HOST_LABELS": '{"gpu": 1, "gpu_name": "NVIDIA A100"}'}

    said = [
        client._introduction(from_env(env), Identity(container="c", host="h")).labels
        for env in (sandbox, lent)
    ]

    assert "gpu" not in said[0] and said[1]["gpu"] == 1


def test_containers_are_told_the_machines_facts_and_made_anew_for_other_labels() -> None:
    front = Front(slots="/s", network="n", job_disk=3 * 2**30)
    plan = Plan(
        instance="a",
        host_id=str(uuid.uuid4()),
        server="http://192.0.2.1",
        key_digest="0",
        image="sha256:1",
        front=front,
        facts={"gpu": 2},
        labels={"room": "attic", "slot": "mine"},
    )
    other = Plan(**{**vars(plan), "labels": {"room": "cellar"}})

    env = dict(one.split("=", 1) for one in container_config(plan, 4)["Env"])

    assert json.loads(env["DOCKERCOMP_HOST_LABELS"]) == {"gpu": 2}
    assert json.loads(env["DOCKERCOMP_LABELS"]) == {"room": "attic", "slot": 4}
    assert env["DOCKERCOMP_DISK_MB"] == "3072"
    assert config_digest(plan) != config_digest(other)


def test_own_labels_stand_in_the_policy_and_may_not_be_the_machines() -> None:
    policy = parse_policy('[machine]\nlabels = { "room" = "attic", "floor" = 3, "rate" = 1.5 }\n')

    assert policy.labels == {"room": "attic", "floor": 3, "rate": 1.5}
    assert parse_policy(render_policy(policy)) == policy
    assert Policy().labels == {}


@pytest.mark.parametrize(
    "text",
    [
        '{ "gpu" = 8 }',
        '{ "arch" = "x" }',
        '{ "slot" = 1 }',
        '{ "a b" = 1 }',
        '{ "a" = true }',
        '{ "a" = "" }',
        "3",
    ],
)
def test_labels_that_the_machine_gives_or_nobody_can_read_are_refused(text: str) -> None:
    with pytest.raises(BadPolicy, match=r"machine\.labels must be "):
        parse_policy(f"[machine]\nlabels = {text}\n")


def test_a_client_lets_nobody_override_what_the_machine_is(tmp_path: Path) -> None:
    from client_container.__main__ import _introduction
    from client_container.identity import Identity

    (tmp_path / "key").write_text("k")
    env = {
        "DOCKERCOMP_KEY_FILE": str(tmp_path / "key"),
        "DOCKERCOMP_LABELS": '{"arch": "quantum", "gpu": 8, "room": "attic"}',
        "DOCKERCOMP_HOST_LABELS": '{"gpu": 1, "os_release": "debian-12"}',
        "DOCKERCOMP_DISK_MB": "100",
        "DOCKERCOMP_HOME": str(tmp_path),
    }

    said = _introduction(from_env(env), Identity(container=str(uuid.uuid4()), host=str(uuid.uuid4())))

    message = said.to_message()
    assert message["labels"]["arch"] != "quantum" and message["labels"]["room"] == "attic"
    assert message["labels"]["gpu"] == 1 and message["labels"]["os_release"] == "debian-12"
    assert message["resources"]["disk_mb"] == 100
