"""A hostile container looks around: what it can reach from behind the wall, and a control container without one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from isolated import (
    DNS,
    HOME,
    METADATA,
    NEIGHBOUR,
    SERVER,
    SERVER_PORT,
    Machine,
    isolated_machine,
    run,
)
from launching import wait_for
from parts import require

from client_container.launcher import engine as engine_module
from client_container.launcher.engine import Engine
from client_container.launcher.errors import EngineTooOld, LauncherError
from client_container.launcher.wall.firewall import FirewallError
from client_container.launcher.wall.network import LOOK_S, NetworkInTheWay, Wall

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
LABELS = {"dockercomp.host": "host-of-the-test"}
ELSEWHERE = [(SERVER, 22), (NEIGHBOUR, 80), (METADATA, 80), (HOME, 8080), (DNS, 8080)]
SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def tcp(target):
    try:
        with socket.create_connection(target, timeout=1.5) as connection:
            return connection.recv(5) == b"hello"
    except OSError:
        return False
def udp(target):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1.5)
        try:
            asking.sendto(b"?", target)
            return asking.recv(5) == b"hello"
        except OSError:
            return False
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(40) as pool:
    answers = [list(pool.map(ask, targets)) for ask in (tcp, udp)]
print(json.dumps(answers))
"""
HELLO = """
import socket, threading
def hear():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearing:
        hearing.bind(("0.0.0.0", 9000))
        hearing.recv(10)
        open("/tmp/heard", "w").close()
threading.Thread(target=hear, daemon=True).start()
listening = socket.create_server(("0.0.0.0", 9000))
while True:
    with listening.accept()[0] as connection:
        connection.sendall(b"hello")
"""


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setting:
    """A machine with a world around it, and containers on it."""

    machine: Machine
    engine: Engine
    image: str

    @cached_property
    def control(self) -> Container:
        """A container on the engine's default bridge, which no wall is around."""
        return self.container("bridge")

    def wall(self, **options: object) -> Wall:
        given = {
            "engine": self.engine,
            "instance": f"t{uuid.uuid4().hex[:6]}",
            "labels": LABELS,
            "server": f"http://{SERVER}:{SERVER_PORT}",
            "servers": lambda: [DNS],
            **options,
        }
        return Wall(**given)  # type: ignore[arg-type]

    def ensure(self, wall: Wall) -> str:
        return self.machine.home.call(wall.ensure)

    def container(
        self, network: str, program: str = "import time; time.sleep(10**6)", **options: object
    ) -> Container:
        confined = {"cap_drop": ["ALL"], "user": "730000:730000", "network": network, **options}
        return self.machine.client.containers.run(
            self.image, ["-c", program], entrypoint="python3", detach=True, **confined
        )

    def reached(
        self,
        container: Container,
        targets: list[tuple[str, int]],
        *,
        tcp: Sequence[bool] = (),
        udp: Sequence[bool] = (),
    ) -> tuple[list[bool], list[bool]]:
        """For each target whether it answered, over TCP and over UDP.

        What should answer, by `tcp` and `udp`, is asked again for a while: a busy machine may take its time.
        """
        found, ends = ([False] * len(targets), [False] * len(targets)), time.monotonic() + 30
        while True:
            outcome = container.exec_run(["python3", "-c", SCAN, json.dumps(targets)])
            assert outcome.exit_code == 0, outcome.output
            for known, answers in zip(found, json.loads(outcome.output), strict=True):
                known[:] = [before or now for before, now in zip(known, answers, strict=True)]
            lacking = [
                wanted and not got
                for should, known in zip((tcp, udp), found, strict=True)
                for wanted, got in zip(should, known, strict=False)
            ]
            if not any(lacking) or time.monotonic() > ends:
                return found


@pytest.fixture(scope="module")
def setting(engine: docker.DockerClient, client_image: str) -> Iterator[Setting]:
    with isolated_machine() as machine, pytest.MonkeyPatch.context() as patched:
        machine.client.images.load(b"".join(engine.images.get(client_image).save()))
        patched.setenv("DOCKER_HOST", machine.socket_url)
        for address, port in [
            (SERVER, SERVER_PORT),
            (SERVER, 22),
            (NEIGHBOUR, 80),
            (METADATA, 80),
            (DNS, 53),
        ]:
            machine.listen(machine.lan, address, port)
        machine.listen(machine.lan, DNS, 8080)
        machine.listen(machine.home, "0.0.0.0", 8080)
        yield Setting(machine, Engine(), client_image)


@pytest.fixture
def wall(setting: Setting) -> Iterator[Wall]:
    wall = setting.wall(clock=Clock())
    setting.ensure(wall)
    yield wall
    take_down(setting, wall)


def take_down(setting: Setting, wall: Wall) -> None:
    for container in setting.machine.client.containers.list(all=True):
        if container.id != setting.control.id:
            container.remove(force=True)
    setting.machine.home.call(wall.remove)


def address_of(container: Container) -> str:
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def test_a_scanner_behind_the_wall_reaches_the_server_and_dns_and_what_the_control_reaches_not(
    setting: Setting, wall: Wall
) -> None:
    gateway = wall.gateway()
    targets = [(SERVER, SERVER_PORT), (DNS, 53), *ELSEWHERE, (gateway, 8080)]
    behind = setting.container(wall.network)

    all_of_them, by_tcp, by_udp = [True] * len(targets), [True, True], [False, True]
    in_control, over_udp_in_control = setting.reached(
        setting.control, targets, tcp=all_of_them, udp=all_of_them
    )
    reached, over_udp = setting.reached(behind, targets, tcp=by_tcp, udp=by_udp)

    assert in_control == over_udp_in_control == all_of_them
    assert reached == [*by_tcp, *([False] * 6)]
    assert over_udp == [*by_udp, *([False] * 6)]


def test_containers_behind_the_wall_reach_no_other_container(setting: Setting, wall: Wall) -> None:
    neighbour = setting.container(wall.network, HELLO)
    elsewhere = setting.container("bridge", HELLO, ports={"9000/tcp": 9000})
    behind = setting.container(wall.network)
    targets = [
        (address_of(neighbour), 9000),
        (address_of(elsewhere), 9000),
        (HOME, 9000),
        (wall.gateway(), 9000),
    ]

    for target in targets[1:]:
        wait_for(lambda target=target: setting.machine.home.call(answers, *target))
    (by_itself,), _ = setting.reached(neighbour, targets[:1], tcp=[True])
    in_control, _ = setting.reached(setting.control, targets[1:], tcp=[True])
    reached, _ = setting.reached(behind, targets)

    assert by_itself
    assert in_control[0]
    assert reached == [False] * 4


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(5) == b"hello"
    except OSError:
        return False


def send_one_packet(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.sendto(b"x", (address, port))


def is_listening(container: Container) -> bool:
    """On 9000 (hexadecimal 2328), over TCP and UDP."""
    program = "print([open(f'/proc/net/{kind}').read().count(':2328 ') for kind in ('tcp', 'udp')])"
    return bool(container.exec_run(["python3", "-c", program]).output == b"[1, 1]\n")


def has_heard(container: Container) -> bool:
    return bool(container.exec_run(["python3", "-c", "open('/tmp/heard')"]).exit_code == 0)


def test_a_neighbour_in_the_lan_cannot_come_in(setting: Setting, wall: Wall) -> None:
    behind = setting.container(wall.network, HELLO)
    control = setting.container("bridge", HELLO)
    run_in_lan = setting.machine.lan.call
    run_in_lan(run, "ip", "route", "replace", "172.16.0.0/12", "via", HOME)
    # The engine keeps strangers out as well, so both are opened: right behind whatever the wall has there.
    walls = setting.machine.iptables("-S", "DOCKER-USER").count("-j DOCKERCOMP-")
    for bridge in (wall.names.bridge, "docker0"):
        setting.machine.iptables("-I", "DOCKER-USER", str(walls + 1), "-o", bridge, "-j", "ACCEPT")

    try:
        wait_for(lambda: run_in_lan(answers, address_of(control), 9000))
        wait_for(lambda: is_listening(behind))
        assert not run_in_lan(answers, address_of(behind), 9000)
        # Not even one packet, to which no answer is needed.
        for container in (behind, control):
            run_in_lan(send_one_packet, address_of(container), 9000)
        wait_for(lambda: has_heard(control))
        assert not has_heard(behind)
        setting.machine.home.call(send_one_packet, address_of(behind), 9000)
        wait_for(lambda: has_heard(behind))
    finally:
        for bridge in (wall.names.bridge, "docker0"):
            setting.machine.iptables("-D", "DOCKER-USER", "-o", bridge, "-j", "ACCEPT")


def test_a_server_on_this_very_machine_is_reached_at_its_port_alone(setting: Setting) -> None:
    wall = setting.wall(server=f"http://{HOME}:8080")
    setting.ensure(wall)
    try:
        setting.machine.listen(setting.machine.home, HOME, 8081)
        behind = setting.container(wall.network)
        targets = [(HOME, 8080), (HOME, 8081), (wall.gateway(), 8080), (SERVER, SERVER_PORT)]

        assert setting.reached(setting.control, targets, tcp=[True] * 4)[0] == [True] * 4
        assert setting.reached(behind, targets, tcp=[True])[0] == [True, False, False, False]
    finally:
        take_down(setting, wall)


def test_a_server_in_a_container_of_this_machine_is_reached_through_its_published_port(
    setting: Setting,
) -> None:
    setting.container("bridge", HELLO, ports={"9000/tcp": 9100})
    wall = setting.wall(server=f"http://{HOME}:9100")
    setting.ensure(wall)
    try:
        behind = setting.container(wall.network)

        targets = [(HOME, 9100), (HOME, 8080)]
        assert setting.reached(behind, targets, tcp=[True])[0] == [True, False]
    finally:
        take_down(setting, wall)


def test_with_a_proxy_the_server_itself_is_out_of_reach(setting: Setting) -> None:
    wall = setting.wall(proxy=f"http://{NEIGHBOUR}:80")
    setting.ensure(wall)
    try:
        behind = setting.container(wall.network)

        targets = [(NEIGHBOUR, 80), (SERVER, SERVER_PORT)]
        reached = setting.reached(behind, targets, tcp=[True])[0]
        assert reached == [True, False]
    finally:
        take_down(setting, wall)


def test_the_name_host_gateway_means_this_machine(setting: Setting) -> None:
    wall = setting.wall(server="http://server.test:8080", extra_hosts=["server.test:host-gateway"])
    setting.ensure(wall)
    try:
        behind = setting.container(wall.network)

        targets = [(setting.engine.gateway, 8080), (HOME, 8080)]
        assert setting.reached(behind, targets, tcp=[True])[0] == [True, False]
    finally:
        take_down(setting, wall)


@pytest.mark.parametrize(
    "damage",
    [
        ["-F", "DOCKER-USER"],
        ["-F", "FORWARD"],
        ["-F", "INPUT"],
        ["-F", "{forwarded}"],
        ["-F", "{local}"],
        ["-I", "INPUT", "-j", "ACCEPT"],
        ["-I", "DOCKER-USER", "-j", "RETURN"],
        ["-F"],
    ],
)
def test_what_somebody_changed_is_put_right_at_the_next_look(setting: Setting, damage: list[str]) -> None:
    clock = Clock()
    wall = setting.wall(clock=clock)
    before = setting.machine.rules()
    names = {"forwarded": wall.names.forwarded, "local": wall.names.local}
    setting.ensure(wall)
    whole = setting.machine.rules()
    try:
        setting.machine.iptables(*[word.format(**names) for word in damage])
        setting.ensure(wall)
        assert setting.machine.rules() != whole, "a look sooner than LOOK_S costs nothing"

        clock.now += LOOK_S
        setting.ensure(wall)

        ours = [
            line for line in whole.splitlines() if wall.names.forwarded in line or wall.names.local in line
        ]
        there = setting.machine.rules().splitlines()
        assert [line for line in there if wall.names.forwarded in line or wall.names.local in line] == ours
        assert there.index(ours[-1]) > 0
        clock.now += LOOK_S
        settled = setting.machine.rules()
        setting.ensure(wall)
        assert setting.machine.rules() == settled
    finally:
        take_down(setting, wall)
        restore(setting, before)


def restore(setting: Setting, rules: str) -> None:
    """Give the machine's own rules back, as another test may want them."""
    v4 = rules.split("COMMIT\n*filter")[0].removesuffix("COMMIT") + "COMMIT\n"
    setting.machine.home.call(lambda: run("iptables-restore", text=v4))


def test_nothing_is_left_and_foreign_rules_stay(setting: Setting) -> None:
    setting.machine.iptables("-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    before = setting.machine.rules()
    wall, other = setting.wall(), setting.wall()

    for one in (wall, other):
        setting.ensure(one)
    assert setting.machine.rules() != before
    for one in (wall, other, wall):
        setting.machine.home.call(one.remove)

    assert setting.machine.rules() == before
    networks = [network.name for network in setting.machine.client.networks.list()]
    assert not [name for name in networks if name.startswith("dockercomp-")]


def test_two_instances_have_walls_of_their_own(setting: Setting) -> None:
    clock = Clock()
    one, other = setting.wall(clock=clock), setting.wall(clock=clock, server=f"http://{NEIGHBOUR}:80")
    try:
        for wall in (one, other):
            setting.ensure(wall)
        clock.now += LOOK_S  # for what the engine put first when it made the other network
        setting.ensure(one)
        settled = setting.machine.rules()
        for wall in (other, one):
            clock.now += LOOK_S
            setting.ensure(wall)
        assert setting.machine.rules() == settled, "they do not push each other down"

        targets = [(SERVER, SERVER_PORT), (NEIGHBOUR, 80)]
        for wall, expected in ((one, [True, False]), (other, [False, True])):
            assert setting.reached(setting.container(wall.network), targets, tcp=expected)[0] == expected
    finally:
        take_down(setting, one)
        take_down(setting, other)


def test_a_network_of_somebody_else_is_not_taken_and_not_removed(setting: Setting) -> None:
    wall = setting.wall()
    theirs = setting.machine.client.networks.create(wall.network)
    try:
        with pytest.raises(NetworkInTheWay, match="did not make"):
            setting.ensure(wall)
        setting.machine.home.call(wall.remove)

        assert setting.machine.client.networks.get(theirs.id)
    finally:
        theirs.remove()


def test_a_network_of_ours_with_old_settings_is_made_again(setting: Setting) -> None:
    wall = setting.wall()
    labels = {**LABELS, "dockercomp.instance": wall.network.removeprefix("dockercomp-")}
    setting.machine.client.networks.create(wall.network, labels=labels)
    try:
        setting.ensure(wall)

        made = setting.machine.client.networks.get(wall.network)
        assert made.attrs["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    finally:
        setting.machine.home.call(wall.remove)


def test_the_rules_are_there_before_the_network(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = setting.wall()
    seen: list[str] = []

    def watched(config: dict[str, object]) -> None:
        seen.append(run("iptables", "-S"))
        raise LauncherError("enough")

    monkeypatch.setattr(setting.engine, "create_network", watched)
    with pytest.raises(LauncherError, match="enough"):
        setting.ensure(wall)

    assert f"-A {wall.names.forwarded} -j DROP" in seen[0]
    setting.machine.home.call(wall.remove)


AS_A_SERVICE = """
from client_container.launcher.wall.firewall import Family, Firewall, Target, layout
wall = Firewall(layout("caps"))
assert wall.ensure([Target("203.0.113.7", "tcp", 443)])
assert not wall.ensure([Target("203.0.113.7", "tcp", 443)])
print(Family.find("iptables").read()["DOCKERCOMP-caps-F"])
wall.remove()
print(Family.find("iptables").read().get("DOCKERCOMP-caps-F"))
"""


def test_an_engine_is_asked_for_its_version_each_time(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Engine()
    asked.check()

    monkeypatch.setattr(engine_module, "LEAST_ENGINE", "1000.0")

    with pytest.raises(EngineTooOld, match=re.escape(engine.version()["Version"])):
        asked.check()


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@pytest.mark.parametrize("capabilities", ["+net_admin,+net_raw", ""])
def test_two_capabilities_are_enough_and_necessary(
    setting: Setting, tmp_path: Path, flavour: str, capabilities: str
) -> None:
    done = as_a_service(setting, tmp_path, flavour, capabilities)

    if capabilities:
        assert done.returncode == 0, done.stderr
        built, removed = done.stdout.splitlines()
        assert "-j DROP" in built
        assert removed == "None"
    else:
        assert FirewallError.__name__ in done.stderr
        assert "The packet filter refused" in done.stderr


def as_a_service(
    setting: Setting, folder: Path, flavour: str, capabilities: str
) -> subprocess.CompletedProcess[str]:
    """Build a wall as a user without rights but for these capabilities, with that flavour of iptables."""
    for name in ("iptables", "ip6tables"):
        for tool in (name, f"{name}-restore"):
            real = shutil.which(tool.replace("tables", f"tables-{flavour}"), path="/usr/sbin:/sbin")
            if real is None:
                require(f"there is no {flavour} flavour of iptables")
            (folder / tool).symlink_to(str(real))
    place = setting.machine.folder / f"code-{uuid.uuid4().hex[:6]}"
    shutil.copytree(ROOT / "client_container", place / "client_container")
    for one in (setting.machine.folder, *folder.parents[:2], folder):  # not the folder for all: it is others'
        one.chmod(0o755)
    user = ["setpriv", "--reuid=64999", "--regid=64999", "--clear-groups", "--no-new-privs"]
    caps = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"] if capabilities else []
    shell = ["env", "-i", f"PATH={folder}:/usr/bin:/bin", f"PYTHONPATH={place}", "/usr/bin/python3"]
    command = [*user, *caps, *shell, "-c", AS_A_SERVICE]
    return setting.machine.home.call(
        lambda: subprocess.run(command, capture_output=True, text=True, cwd=setting.machine.folder)
    )
