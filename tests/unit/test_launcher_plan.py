"""What a client container's configuration says, without an engine."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from client_container.launcher.plan import Plan, config_digest, container_config

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
