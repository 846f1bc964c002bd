"""Addresses that a container must not reach, each of which was seen to answer from outside one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

#: Where clouds answer questions about a machine, credentials among the answers.
METADATA = ("169.254.169.254", 80)
ROUTER_PORTS = (80, 443, 53)
CONNECT_S = 1.0


@dataclass(frozen=True)
class Goal:
    """One address and port, and whether something answers there (the control)."""

    name: str
    address: str
    port: int
    answers: bool = True
    needed: bool = True  #: whether the check fails when nothing answers here even without the wall


class Listener:
    """Accepts TCP connections at an address of this machine until closed; raises OSError."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_server((address, 0))
        self.address, self.port = address, int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, name="self-test-listener", daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.accept()[0].close()

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def answers(address: str, port: int) -> bool:
    """Whether a TCP connection can be opened from this machine."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def goal(name: str, address: str, port: int) -> Goal:
    """A goal with its control."""
    return Goal(name, address, port, answers(address, port))


def outward_address(towards: Iterable[str]) -> str | None:
    """This machine's own address in the direction of the first of these that it has a route to. Sends nothing."""
    for address in towards:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
            asking.connect((address, 9))
            return str(asking.getsockname()[0])
    return None


def router(table: Path = Path("/proc/net/route")) -> str | None:
    """The address of this machine's default router; None when it has none."""
    for line in table.read_text().splitlines()[1:]:
        words = line.split()
        if len(words) > 2 and words[1] == "00000000" and words[2] != "00000000":
            return socket.inet_ntoa(struct.pack("<L", int(words[2], 16)))
    return None


def outside_goals(allowed: Iterable[tuple[str, int]], table: Path = Path("/proc/net/route")) -> list[Goal]:
    """What is there without our doing: the router, if it answers, and the metadata address, whether it does or not."""
    permitted = set(allowed)
    goals = []
    address = router(table)
    for port in ROUTER_PORTS if address else ():
        if address and (address, port) not in permitted and answers(address, port):
            goals.append(Goal("the router", address, port))
            break
    return [*goals, replace(goal("the metadata address", *METADATA), needed=False)]
