"""What a client container's configuration says, without an engine."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from client_container.launcher.clients.plan import (
    FRONT_CPUS,
    FRONT_MEMORY,
    Front,
    Plan,
    config_digest,
    container_config,
)

PLAN = Plan(
    instance="default",
    host_id="0b5f3a52-6a0f-4b43-a7a5-4c2f6a1d9c11",
    server="http://172.17.0.1:8765",
    key_digest="a" * 64,
    image="sha256:" + "1" * 64,
)


def environment(config: dict[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config["Env"])


def test_nothing_of_the_host_is_mounted_but_a_named_volume() -> None:
    host = container_config(PLAN, 2)["HostConfig"]

    assert [mount["Type"] for mount in host["Mounts"]] == ["volume"]
    assert not {"Binds", "Devices", "VolumesFrom", "CapAdd", "Privileged", "PidMode"} & host.keys()


def test_each_slot_has_a_user_and_a_volume_of_its_own() -> None:
    configs = [container_config(PLAN, slot) for slot in range(5)]

    assert len({config["User"] for config in configs}) == 5
    assert len({config["HostConfig"]["Mounts"][0]["Source"] for config in configs}) == 5
    assert configs[3]["User"] == "730003:730003"


def test_two_state_folders_with_one_instance_name_share_no_container_or_volume_name() -> None:
    other = dataclasses.replace(PLAN, host_id="99999999-6a0f-4b43-a7a5-4c2f6a1d9c11")

    assert PLAN.name(0) != other.name(0)


def test_swap_is_no_way_around_the_memory_limit() -> None:
    host = container_config(PLAN, 0)["HostConfig"]

    assert host["MemorySwap"] == host["Memory"] == 512 * 2**20


def test_the_client_is_told_where_it_runs_and_what_it_is() -> None:
    env = environment(container_config(PLAN, 4))

    assert env["DOCKERCOMP_SERVER"] == "http://172.17.0.1:8765"
    assert env["DOCKERCOMP_IMAGE"] == PLAN.image
    assert env["DOCKERCOMP_HOST_ID"] == PLAN.host_id
    assert json.loads(env["DOCKERCOMP_LABELS"]) == {"slot": 4}
    assert "DOCKERCOMP_HOST_NAME" not in env


def test_the_key_is_named_by_file_and_its_digest_is_in_no_configuration() -> None:
    config = container_config(PLAN, 0)

    assert environment(config)["DOCKERCOMP_KEY_FILE"] == "/var/lib/dockercomp/account.key"
    assert PLAN.key_digest not in json.dumps(config)


@pytest.mark.parametrize(
    "change",
    [
        {"image": "sha256:" + "2" * 64},
        {"server": "http://172.17.0.1:9000"},
        {"cpus": 0.5},
        {"memory": 2**30},
        {"key_digest": "b" * 64},
        {"extra_hosts": ("server.test:10.0.0.1",)},
        {"host_name": "attic"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_container_changes_its_digest(change: dict[str, Any]) -> None:
    assert config_digest(dataclasses.replace(PLAN, **change)) != config_digest(PLAN)


def test_all_slots_carry_the_same_digest() -> None:
    digests = {container_config(PLAN, slot)["Labels"]["dockercomp.config"] for slot in range(4)}

    assert digests == {config_digest(PLAN)}


# --- in front of a sandbox

FRONT = Front(slots="/var/lib/dockercomp/slots", network="dockercomp-default", job_cpus=1.5, job_memory=2**30)
BEFORE_A_SANDBOX = dataclasses.replace(PLAN, cpus=FRONT_CPUS, memory=FRONT_MEMORY, front=FRONT)


def test_a_client_before_a_sandbox_has_its_slot_and_may_run_nothing_itself() -> None:
    config = container_config(BEFORE_A_SANDBOX, 3)
    env, host = environment(config), config["HostConfig"]

    assert [(one["Type"], one["Source"], one["Target"]) for one in host["Mounts"]] == [
        ("bind", "/var/lib/dockercomp/slots/3", "/var/lib/dockercomp")
    ]
    assert host["NetworkMode"] == "dockercomp-default"
    assert env["DOCKERCOMP_RUNTIME"] == "sandbox" and env["DOCKERCOMP_ALLOW"] == ""
    assert env["DOCKERCOMP_LAUNCHER_SOCKET"] == "/var/lib/dockercomp/launcher.sock"
    assert (env["DOCKERCOMP_CPUS"], env["DOCKERCOMP_MEMORY_MB"]) == ("1.5", "1024")
    assert host["Memory"] == host["MemorySwap"] == 96 * 2**20 and host["NanoCpus"] == 500_000_000


def test_it_is_hardened_as_any_other() -> None:
    plain, host = container_config(PLAN, 0)["HostConfig"], container_config(BEFORE_A_SANDBOX, 0)["HostConfig"]

    for name in ("ReadonlyRootfs", "CapDrop", "SecurityOpt", "IpcMode", "RestartPolicy", "Init", "LogConfig"):
        assert host[name] == plain[name]
    assert host["PidsLimit"] < plain["PidsLimit"]
    assert not {"Binds", "Devices", "VolumesFrom", "CapAdd", "Privileged", "PidMode"} & host.keys()


def test_the_kind_of_container_is_a_label_only_where_jobs_have_their_own() -> None:
    assert "dockercomp.kind" not in container_config(PLAN, 0)["Labels"]
    assert container_config(BEFORE_A_SANDBOX, 0)["Labels"]["dockercomp.kind"] == "client"
    assert BEFORE_A_SANDBOX.own_labels()["dockercomp.kind"] == "client"


def test_certificates_and_proxy_are_handed_on() -> None:
    front = dataclasses.replace(FRONT, ca_file="/etc/ca-bundle.pem", ca_digest="1", proxy="http://proxy:3128")
    config = container_config(dataclasses.replace(BEFORE_A_SANDBOX, front=front), 0)
    env = environment(config)

    assert config["HostConfig"]["Mounts"][1]["Source"] == "/etc/ca-bundle.pem"
    assert config["HostConfig"]["Mounts"][1]["ReadOnly"] is True
    assert env["REQUESTS_CA_BUNDLE"] == env["SSL_CERT_FILE"] == config["HostConfig"]["Mounts"][1]["Target"]
    assert {env[name] for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")} == {
        "http://proxy:3128"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"network": "another"},
        {"ca_file": "/etc/ca.pem"},
        {"ca_digest": "2"},
        {"proxy": "http://proxy:1"},
        {"job_cpus": 1.0},
        {"job_memory": 2**29},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_such_a_container_changes_its_digest(change: dict[str, Any]) -> None:
    other = dataclasses.replace(BEFORE_A_SANDBOX, front=dataclasses.replace(FRONT, **change))

    assert config_digest(other) != config_digest(BEFORE_A_SANDBOX)
