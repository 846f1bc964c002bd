"""The wall's rules and its look at the world, without a packet filter."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from client_container.launcher.wall.firewall import (
    DOCKER_USER,
    LONGEST_CHAIN,
    LONGEST_DEVICE,
    Target,
    building_script,
    chains,
    closed_chains,
    hooked,
    hooks,
    layout,
    parse,
    removing_script,
)
from client_container.launcher.wall.network import (
    MOST_ADDRESSES,
    Addresses,
    Place,
    Wall,
    believed,
    name_servers,
    network_config,
    targets,
)

WALL = layout("default")
SERVER = Target("203.0.113.7", "tcp", 443)
OURS_FIRST = {
    "FORWARD": [f"-i dc-default -j {WALL.forwarded}", f"-o dc-default -j {WALL.forwarded}", "-j DOCKER-USER"],
    "INPUT": [f"-i dc-default -j {WALL.local}"],
    DOCKER_USER: [f"-o dc-default -j {WALL.forwarded}", f"-i dc-default -j {WALL.forwarded}", "-j RETURN"],
}


@pytest.mark.parametrize("instance", ["default", "a", "a" * 32, "universities-of-the-far-north"])
def test_names_keep_the_kernels_limits(instance: str) -> None:
    names = layout(instance)

    assert len(names.bridge) <= LONGEST_DEVICE
    assert max(len(names.forwarded), len(names.local)) <= LONGEST_CHAIN


def test_long_instance_names_with_the_same_start_do_not_share_a_wall() -> None:
    one, other = layout("universities-of-the-far-north"), layout("universities-of-the-far-south")

    assert one.bridge != other.bridge
    assert one.forwarded != other.forwarded


def test_what_is_not_named_is_dropped_on_both_ways_and_nothing_comes_after() -> None:
    for rules in [*chains(WALL, [SERVER]).values(), *closed_chains(WALL).values()]:
        assert rules[-1] == "-j DROP"
        assert rules.count("-j DROP") == 1


def test_only_the_targets_may_be_connected_to() -> None:
    built = chains(WALL, [SERVER, Target("10.0.0.53", "udp", 53)])

    accepting = [rule for rule in built[WALL.local] if rule.endswith("ACCEPT")]
    assert accepting == [
        "-p udp -m conntrack --ctorigdst 10.0.0.53 --ctorigdstport 53 -j ACCEPT",
        "-p tcp -m conntrack --ctorigdst 203.0.113.7 --ctorigdstport 443 -j ACCEPT",
    ]
    assert [rule for rule in built[WALL.forwarded] if rule not in accepting] == [
        "-o dc-default -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-j DROP",
    ]


def test_without_targets_nothing_can_be_reached() -> None:
    assert chains(WALL, [])[WALL.local] == ["-j DROP"]


def test_the_family_that_containers_lack_is_closed() -> None:
    assert set(closed_chains(WALL)) == {WALL.forwarded, WALL.local}


def test_an_engine_without_docker_user_is_hooked_in_forward_alone() -> None:
    assert set(hooks(WALL, {"FORWARD": [], "INPUT": []})) == {"FORWARD", "INPUT"}
    assert set(hooks(WALL, OURS_FIRST)) == {"FORWARD", "INPUT", DOCKER_USER}


def test_walls_of_several_instances_do_not_push_each_other_down() -> None:
    other = f"-i dc-other -j {layout('other').forwarded}"

    assert hooked(WALL, {chain: [other, *rules] for chain, rules in OURS_FIRST.items()})


@pytest.mark.parametrize("chain", ["FORWARD", "INPUT", DOCKER_USER])
def test_a_rule_of_somebody_else_before_ours_is_seen(chain: str) -> None:
    assert not hooked(WALL, {**OURS_FIRST, chain: ["-j ACCEPT", *OURS_FIRST[chain]]})


@pytest.mark.parametrize("chain", ["FORWARD", "INPUT", DOCKER_USER])
def test_a_missing_hook_is_seen(chain: str) -> None:
    assert not hooked(WALL, {**OURS_FIRST, chain: OURS_FIRST[chain][1:]})


def test_building_removes_old_hooks_as_they_are_spelled_and_never_a_foreign_rule() -> None:
    there = {**OURS_FIRST, "INPUT": ["-p tcp -m tcp --dport 22 -j ACCEPT", *OURS_FIRST["INPUT"]]}

    script = building_script(WALL, there, chains(WALL, [SERVER]))

    removed = [line for line in script.splitlines() if line.startswith("-D ")]
    assert len(removed) == 5
    assert all(line.endswith((WALL.forwarded, WALL.local)) for line in removed)
    assert script.startswith("*filter\n")
    assert script.endswith("COMMIT\n")


def test_removing_names_only_our_own_chains_and_is_empty_when_nothing_is_there() -> None:
    there = {**OURS_FIRST, WALL.forwarded: ["-j DROP"], WALL.local: ["-j DROP"]}

    script = removing_script(WALL, there)

    assert f"-X {WALL.forwarded}" in script
    assert f"-X {WALL.local}" in script
    assert "-F FORWARD" not in script
    assert removing_script(WALL, {"FORWARD": ["-j DOCKER-USER"], "INPUT": []}) == ""


def test_another_instances_wall_is_left_alone() -> None:
    other = layout("other")
    there = {"FORWARD": [f"-i dc-other -j {other.forwarded}"], other.forwarded: ["-j DROP"]}

    assert removing_script(WALL, there) == ""


def test_what_iptables_prints_is_read_by_chain() -> None:
    said = "-P INPUT ACCEPT\n-N X\n-A INPUT -i eth0 -j X\n-A X -j DROP\n"

    assert parse(said) == {"INPUT": ["-i eth0 -j X"], "X": ["-j DROP"]}


@pytest.mark.parametrize(
    ("url", "port"), [("https://s.example", 443), ("http://s.example/", 80), ("http://s.example:8765", 8765)]
)
def test_the_servers_port_is_the_urls(url: str, port: int) -> None:
    assert Place.of(url) == Place("s.example", port)


def test_targets_are_the_server_and_dns_and_nothing_else() -> None:
    assert targets(Place("s.example", 443), ["203.0.113.7"], ["10.0.0.53"]) == [
        Target("10.0.0.53", "tcp", 53),
        Target("10.0.0.53", "udp", 53),
        Target("203.0.113.7", "tcp", 443),
    ]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Names:
    """A name server that can be switched off."""

    def __init__(self) -> None:
        self.answers: list[str] = ["203.0.113.7"]
        self.asked = 0

    def __call__(self, host: str) -> list[str]:
        self.asked += 1
        if not self.answers:
            raise socket.gaierror("no such host")
        return self.answers


def test_a_name_is_resolved_once_a_minute_at_most() -> None:
    clock, names = Clock(), Names()
    addresses = Addresses("s.example", names, clock)
    for clock.now in (0.0, 1.0, 59.0):
        addresses.current()
    assert names.asked == 1

    clock.now = 60.0
    addresses.current()

    assert names.asked == 2


def test_the_last_addresses_stay_when_the_name_cannot_be_resolved() -> None:
    clock, names = Clock(), Names()
    addresses = Addresses("s.example", names, clock)
    addresses.current()

    clock.now, names.answers = 10**6, []

    assert addresses.current() == ["203.0.113.7"]


def test_a_name_that_was_never_resolved_is_tried_again_soon_and_allows_nothing() -> None:
    clock, names = Clock(), Names()
    names.answers = []
    addresses = Addresses("s.example", names, clock)
    assert addresses.current() == []

    clock.now, names.answers = 10.0, ["203.0.113.9"]

    assert addresses.current() == ["203.0.113.9"]


def test_addresses_that_a_name_takes_turns_in_stay_allowed_for_an_hour() -> None:
    clock, names = Clock(), Names()
    addresses = Addresses("s.example", names, clock)
    addresses.current()
    clock.now, names.answers = 60.0, ["203.0.113.8"]
    assert addresses.current() == ["203.0.113.7", "203.0.113.8"]

    clock.now = 3700.0

    assert addresses.current() == ["203.0.113.8"]


def test_a_loopback_address_is_no_address_of_a_server() -> None:
    names = Names()
    names.answers = ["127.0.1.1"]

    assert Addresses("s.example", names, Clock()).current() == []


NEVER = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "0.1.2.3", "240.0.0.1", "255.255.255.255"]
PRIVATE = ["10.0.0.5", "172.17.0.1", "192.168.1.1", "100.100.100.200"]


@pytest.mark.parametrize("address", NEVER)
def test_no_name_opens_the_wall_to_what_no_server_can_have(address: str) -> None:
    assert believed([address], []) == []
    assert believed([address, "8.8.4.4"], []) == ["8.8.4.4"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_public_name_does_not_open_the_wall_to_the_volunteers_own_network(address: str) -> None:
    assert believed([address, "8.8.4.4"], []) == ["8.8.4.4"]
    assert believed([address], ["8.8.4.4"]) == []


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_with_private_addresses_alone_is_a_laboratorys(address: str) -> None:
    assert believed([address], ["10.0.0.6"]) == [address]


def test_a_name_that_turns_from_public_to_private_is_not_believed_for_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, names = Clock(), Names()
    names.answers = ["8.8.4.4"]
    addresses = Addresses("s.example", names, clock)
    addresses.current()

    clock.now, names.answers = 60.0, ["192.168.1.1"]

    assert addresses.current() == ["8.8.4.4"]
    (said,) = [record for record in caplog.records if "not believed" in record.message]
    assert "192.168.1.1" in vars(said)["why"]


def test_a_name_that_turns_out_public_loses_the_private_addresses_it_had() -> None:
    clock, names = Clock(), Names()
    names.answers = ["192.168.1.1"]
    addresses = Addresses("s.example", names, clock)
    addresses.current()

    clock.now, names.answers = 60.0, ["8.8.4.4"]

    assert addresses.current() == ["8.8.4.4"]


def test_a_name_has_a_bounded_number_of_addresses_and_keeps_the_latest() -> None:
    clock, names = Clock(), Names()
    names.answers = [f"8.8.4.{number}" for number in range(200)]
    addresses = Addresses("s.example", names, clock)
    assert len(addresses.current()) == MOST_ADDRESSES

    clock.now, names.answers = 60.0, ["8.8.8.8"]

    assert "8.8.8.8" in addresses.current()
    assert len(addresses.current()) == MOST_ADDRESSES


def wall_of(server: str, *, extra_hosts: tuple[str, ...] = (), answers: tuple[str, ...] = ()) -> Wall:
    return Wall(
        engine=None,  # type: ignore[arg-type]  # what may be reached needs none
        instance="default",
        labels={},
        server=server,
        extra_hosts=extra_hosts,
        resolve=lambda _: list(answers),
        servers=list,
    )


def test_an_address_given_at_the_installation_is_taken_as_it_is() -> None:
    by_name = wall_of("https://s.example", extra_hosts=("s.example:192.168.1.1",), answers=("8.8.4.4",))
    by_address = wall_of("https://192.168.1.1")
    asked = wall_of("https://s.example", answers=("8.8.4.4", "192.168.1.1"))

    assert by_name.allowed() == by_address.allowed() == [Target("192.168.1.1", "tcp", 443)]
    assert asked.allowed() == [Target("8.8.4.4", "tcp", 443)]


def test_name_servers_are_the_machines_and_the_engines_but_not_those_on_loopback(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(
        "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nsearch lan\n"
    )
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"dns": ["192.0.2.53"]}))

    assert name_servers([resolver, tmp_path / "none"], settings) == ["10.0.0.53", "192.0.2.53"]


@pytest.mark.parametrize("content", ["", "[]", '{"dns": 5}', "{"])
def test_engine_settings_that_say_nothing_of_dns_are_no_harm(tmp_path: Path, content: str) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text(content)

    assert name_servers([], settings) == []


def test_containers_of_the_network_cannot_talk_to_each_other() -> None:
    config = network_config("dockercomp-default", WALL, {"dockercomp.host": "h"})

    assert config["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert config["EnableIPv6"] is False
