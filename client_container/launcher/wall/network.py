"""Where client containers live: a Docker network of their own, with a wall that lets them reach the source server and
name servers, and nothing else."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from client_container.launcher.errors import EngineError, LauncherError
from client_container.launcher.wall.firewall import Firewall, Layout, Target, layout

if TYPE_CHECKING:
    from client_container.launcher.engine import Engine

log = logging.getLogger(__name__)

LABEL_INSTANCE = "dockercomp.instance"
LOOK_S = 3.0  #: pause between two looks at the rules and the network
RESOLVE_S = 60.0  #: the same for the server's name
RETRY_S = 10.0  #: the same until the name was resolved for the first time
#: An address that the name had stays allowed for so long: names take turns among addresses.
REMEMBER_S = 3600.0
MOST_ADDRESSES = 16  #: of one name, the latest
DNS_PORT = 53

Resolve = Callable[[str], list[str]]


class NetworkInTheWay(LauncherError):
    """A Docker network or bridge of our name belongs to somebody else."""


@dataclass(frozen=True)
class Place:
    """A host and a port that containers need: the source server's, or the proxy's."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Place:
        """Of an http or https URL."""
        parts = urlsplit(url)
        return cls(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


@dataclass
class Addresses:
    """The IPv4 addresses of one host name, as they were seen. `clock` tells monotonic seconds.

    `given`: whoever installed said what the addresses are, and no name server has a say in them.
    """

    host: str
    resolve: Resolve
    clock: Callable[[], float]
    given: bool = False
    seen: dict[str, float] = field(default_factory=dict)  #: when last, by address
    next_look: float = float("-inf")

    def current(self) -> list[str]:
        """All addresses worth allowing; what was known stays when the name cannot be resolved."""
        now = self.clock()
        if now >= self.next_look:
            self._look(now)
        return sorted(self.seen)

    def _look(self, now: float) -> None:
        self.next_look = now + (RESOLVE_S if self.seen else RETRY_S)
        try:
            answers = self.resolve(self.host)
        except OSError as error:
            log.warning("server's name not resolved", extra={"server": self.host, "why": str(error)})
            return
        lately = {one: when for one, when in self.seen.items() if when > now - REMEMBER_S}
        found = answers if self.given else believed(answers, lately)
        if found:
            known = lately | dict.fromkeys(found, now)
            kept = known if self.given else believed(known, known)
            self.seen = dict(sorted(((one, known[one]) for one in kept), key=_latest)[:MOST_ADDRESSES])
            self.next_look = now + RESOLVE_S
        elif answers:
            log.warning(
                "server's name not believed", extra={"server": self.host, "why": _unbelieved(answers)}
            )


def believed(answers: Iterable[str], lately: Iterable[str]) -> list[str]:
    """Which of the addresses in a name server's answer the wall may open to. Pure.

    `lately` are those the name had within the last hour. Whoever can make a name server lie must not get at the
    volunteer's own network or a cloud's metadata that way: a name with a public address has no private ones. A name
    with private ones alone is a laboratory's.
    """
    usable = [one for one in answers if _may_be_a_server(ipaddress.ip_address(one))]
    known = [*usable, *lately]
    public = any(ipaddress.ip_address(one).is_global for one in known)
    return [one for one in usable if ipaddress.ip_address(one).is_global or not public]


def _may_be_a_server(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether another machine can have it at all."""
    return not (
        address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address in _THIS_NETWORK
    )


_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  #: unspecified, all of it


def _latest(seen: tuple[str, float]) -> tuple[float, str]:
    """Sorts by when, the latest first, then by address."""
    address, when = seen
    return -when, address


def _unbelieved(answers: Iterable[str]) -> str:
    return (
        f"The addresses that the name has now ({', '.join(sorted(set(answers))[:4])}) are none that this server "
        "can have, so the wall does not open to them; if one is right, give it with --add-host."
    )


def resolve_name(host: str) -> list[str]:
    """The IPv4 addresses of a host by the machine's own resolver; raises OSError."""
    answers = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


def name_servers(
    files: Iterable[Path] = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")),
    engine_settings: Path = Path("/etc/docker/daemon.json"),
) -> list[str]:
    """The IPv4 name servers that the engine gives to containers: the machine's, or those of its own settings.

    One on loopback is the machine's own, and the engine asks it in the containers' stead.
    """
    texts = [file.read_text(errors="replace") for file in files if file.is_file()]
    lines = [line.split() for text in texts for line in text.splitlines()]
    named = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return sorted({one for one in [*named, *_engine_servers(engine_settings)] if _is_outside(one)})


def _engine_servers(settings: Path) -> list[str]:
    try:
        said = json.loads(settings.read_text())
        return [str(one) for one in said.get("dns", [])]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_outside(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback and not address.is_unspecified


def targets(place: Place, addresses: Iterable[str], servers: Iterable[str]) -> list[Target]:
    """What containers may reach. Pure."""
    names = [Target(server, protocol, DNS_PORT) for server in servers for protocol in ("tcp", "udp")]
    return sorted({*names, *(Target(address, "tcp", place.port) for address in addresses)})


def network_config(name: str, wall: Layout, labels: Mapping[str, str]) -> dict[str, Any]:
    """The network, in the keys of the Docker Engine API (POST /networks/create). Pure."""
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "EnableIPv6": False,
        "Attachable": False,
        "Labels": dict(labels),
        "Options": {
            "com.docker.network.bridge.name": wall.bridge,
            "com.docker.network.bridge.enable_icc": "false",
        },
    }


class Wall:
    """The network of one instance's client containers, and the wall around it. For any number of threads.

    `labels` are the instance's own; `extra_hosts` (NAME:ADDRESS) are those that containers have in /etc/hosts.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        instance: str,
        labels: Mapping[str, str],
        server: str,
        proxy: str | None = None,
        extra_hosts: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolve = resolve_name,
        servers: Callable[[], list[str]] = name_servers,
    ) -> None:
        self.network = f"dockercomp-{instance}"
        self.names = layout(instance)
        self.place = Place.of(proxy or server)
        self._engine, self._clock, self._name_servers = engine, clock, servers
        self._config = network_config(self.network, self.names, {**labels, LABEL_INSTANCE: instance})
        self._known = dict(one.split(":", 1) for one in extra_hosts)
        self._resolve = resolve
        given = self.place.host in self._known or _is_address(self.place.host)
        self._addresses = Addresses(self.place.host, self._address_of, clock, given)
        self._firewall: Firewall | None = None
        self._next_look = float("-inf")
        self._lock = threading.RLock()

    def ensure(self) -> str:
        """Have rules and network in place, rules first; the network's name. Looks at most every LOOK_S seconds.

        Raises FirewallError, NetworkInTheWay and EngineError: then no container may be started.
        """
        with self._lock:
            return self._ensure(self._clock())

    def remove(self) -> None:
        """Leave neither network nor rules. The containers on it must be gone. Raises EngineError, FirewallError."""
        with self._lock:
            self._next_look = float("-inf")
            there = self._engine.find_network(self.network)
            if there is not None and self._is_ours(there):
                self._engine.remove_network(there["Id"])
            (self._firewall or Firewall(self.names)).remove()

    def allowed(self) -> list[Target]:
        """What containers may reach just now; without the server as long as its name was never resolved."""
        with self._lock:
            return targets(self.place, self._addresses.current(), self._name_servers())

    def gateway(self) -> str:
        """This machine's address on the bridge; raises EngineError."""
        there = self._engine.find_network(self.network)
        for entry in (there or {}).get("IPAM", {}).get("Config") or []:
            if entry.get("Gateway"):
                return str(entry["Gateway"])
        raise EngineError(f"The Docker network {self.network} has no gateway.")

    def _ensure(self, now: float) -> str:
        if now < self._next_look:
            return self.network
        if self._firewall is None:
            self._firewall = Firewall(self.names)
        if self._firewall.ensure(self.allowed()):
            log.info("wall built", extra={"bridge": self.names.bridge, "server": self.place.host})
        if self._has_network():
            self._next_look = now + LOOK_S
            return self.network
        self._engine.create_network(self._config)
        self._firewall.ensure(self.allowed())  # the engine may have put rules of its own first
        self._next_look = now + LOOK_S
        return self.network

    def _address_of(self, host: str) -> list[str]:
        given = self._known.get(host, host)
        if given == "host-gateway":
            return [self._engine.gateway]
        if _is_address(given):
            return [given] if _is_outside(given) else []
        return self._resolve(given)

    def _has_network(self) -> bool:
        there = self._engine.find_network(self.network)
        if there is None:
            return False
        if not self._is_ours(there):
            raise NetworkInTheWay(
                f"There is a Docker network {self.network} that this launcher did not make: remove it with "
                f"docker network rm {self.network}, or choose another instance name."
            )
        if self._is_as_wanted(there):
            return True
        if there.get("Containers"):
            raise NetworkInTheWay(
                f"The Docker network {self.network} was made with other settings and has containers on it: "
                "remove them, and it is made again."
            )
        self._engine.remove_network(there["Id"])
        return False

    def _is_ours(self, there: Mapping[str, Any]) -> bool:
        labels = there.get("Labels") or {}
        return bool(labels.get(LABEL_INSTANCE) == self._config["Labels"][LABEL_INSTANCE])

    def _is_as_wanted(self, there: Mapping[str, Any]) -> bool:
        same = all(there.get(name) == self._config[name] for name in ("Driver", "EnableIPv6", "Labels"))
        options = there.get("Options") or {}
        return same and self._config["Options"].items() <= options.items()
