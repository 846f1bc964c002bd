"""The packet filter around the containers of one bridge: which rules there must be, and the keeping of them.

Two chains of our own a family: one for what is forwarded, one for what is meant for this machine itself. Every packet
from the bridge goes through one of them first; what no rule there lets pass is dropped. Containers have no
IPv6: that family's chains drop everything.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_container.launcher.errors import LauncherError

PREFIX = "DOCKERCOMP-"  #: of the name of every chain that is ours, on any instance
LONGEST_CHAIN = 28  #: characters; the kernel takes no more
LONGEST_DEVICE = 15  #: the same for a network device
DOCKER_USER = "DOCKER-USER"  #: the chain that Docker leaves to others and keeps ahead of its own
LIMIT_S = 20.0  #: longest that one command may take, waiting for other programs' changes included

Chains = Mapping[str, Sequence[str]]  #: rules by chain, as `iptables -S` prints them, without "-A CHAIN "


class FirewallError(LauncherError):
    """The packet filter did not take our rules, so that no container may start."""


class FirewallMissing(FirewallError):
    """There is no iptables on this machine."""


@dataclass(frozen=True, order=True)
class Target:
    """What containers may open connections to."""

    address: str  #: IPv4
    protocol: str  #: tcp or udp
    port: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names that one instance's wall goes by."""

    bridge: str
    forwarded: str  #: chain for what goes through this machine
    local: str  #: chain for what is meant for this machine


def layout(instance: str) -> Layout:
    """The names for an instance, within the kernel's limits and different for different instances."""
    return Layout(
        bridge="dc-" + shortened(instance, LONGEST_DEVICE - 3),
        forwarded=f"{PREFIX}{shortened(instance, LONGEST_CHAIN - len(PREFIX) - 2)}-F",
        local=f"{PREFIX}{shortened(instance, LONGEST_CHAIN - len(PREFIX) - 2)}-I",
    )


def shortened(name: str, longest: int) -> str:
    """The name itself, or its start and a digest where it is too long."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 6]}{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def chains(wall: Layout, targets: Iterable[Target]) -> dict[str, list[str]]:
    """The rules of our own chains, in order. Pure."""
    allowed = [_pass(target) for target in sorted(set(targets))]
    replies = f"-o {wall.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    return {wall.forwarded: [replies, *allowed, "-j DROP"], wall.local: [*allowed, "-j DROP"]}


def _pass(target: Target) -> str:
    # The original destination: that of a server behind a published port of this machine is rewritten before we see it.
    original = f"--ctorigdst {target.address} --ctorigdstport {target.port}"
    return f"-p {target.protocol} -m conntrack {original} -j ACCEPT"


def closed_chains(wall: Layout) -> dict[str, list[str]]:
    """The rules of our own chains in a family that containers do not have. Pure."""
    return {wall.forwarded: ["-j DROP"], wall.local: ["-j DROP"]}


def hooks(wall: Layout, there: Chains) -> dict[str, list[str]]:
    """The rules that lead into our chains, by the chain they must stand first in. Pure.

    Docker puts its own rules ahead of everything in FORWARD whenever it likes, but DOCKER-USER ahead of them; other
    programs put theirs ahead of DOCKER-USER. So we stand in both.
    """
    both_ways = [f"-i {wall.bridge} -j {wall.forwarded}", f"-o {wall.bridge} -j {wall.forwarded}"]
    leading = {"FORWARD": both_ways, "INPUT": [f"-i {wall.bridge} -j {wall.local}"]}
    return {DOCKER_USER: both_ways, **leading} if DOCKER_USER in there else leading


def hooked(wall: Layout, there: Chains) -> bool:
    """Whether nothing but walls comes before ours. Pure."""
    return all(
        set(rules) <= set(_walls_first(there.get(chain, ()))) for chain, rules in hooks(wall, there).items()
    )


def _walls_first(rules: Sequence[str]) -> list[str]:
    """The rules at the start of a chain that lead into a wall, any instance's, or into DOCKER-USER."""
    first = []
    for rule in rules:
        goal = rule.rpartition("-j ")[2]
        if not goal.startswith(PREFIX) and rule != f"-j {DOCKER_USER}":
            break
        first.append(rule)
    return first


def building_script(wall: Layout, there: Chains, wanted: Chains) -> str:
    """What iptables-restore --noflush is to do, in one transaction: our chains anew, our hooks first. Pure."""
    lines = [f":{chain} - [0:0]" for chain in wanted]
    lines += _unhooking(wall, there)
    for chain, rules in hooks(wall, there).items():
        lines += [f"-I {chain} {place} {rule}" for place, rule in enumerate(rules, start=1)]
    lines += [f"-A {chain} {rule}" for chain, rules in wanted.items() for rule in rules]
    return _transaction(lines)


def removing_script(wall: Layout, there: Chains) -> str:
    """What iptables-restore --noflush is to do to leave nothing of ours; empty if nothing is there. Pure."""
    ours = [chain for chain in (wall.forwarded, wall.local) if chain in there]
    lines = _unhooking(wall, there)
    lines += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
    return _transaction(lines) if lines else ""


def _unhooking(wall: Layout, there: Chains) -> list[str]:
    ours = {wall.forwarded, wall.local}
    return [
        f"-D {chain} {rule}"
        for chain, rules in there.items()
        for rule in rules
        if rule.rpartition("-j ")[2] in ours
    ]


def _transaction(lines: Iterable[str]) -> str:
    return "\n".join(["*filter", *lines, "COMMIT", ""])


def parse(said: str) -> dict[str, list[str]]:
    """The chains and their rules, from what `iptables -S` printed. Pure."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        verb, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if verb in ("-P", "-N"):
            found.setdefault(chain, [])
        elif verb == "-A":
            found.setdefault(chain, []).append(rule)
    return found


class Family:
    """The filter table of one address family, read and changed by its iptables commands."""

    def __init__(self, command: str) -> None:
        self._command = command

    @classmethod
    def find(cls, name: str) -> Family | None:
        """The family of that command; None where this machine lacks the command, or the family itself."""
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # not on every user's PATH
        command = shutil.which(name, path=path)
        if command is None or (name == "ip6tables" and not Path("/proc/net/if_inet6").exists()):
            return None
        return cls(command)

    def read(self) -> dict[str, list[str]]:
        """All chains; raises FirewallError."""
        return parse(self._run([self._command, "-w", "10", "-S"]))

    def apply(self, script: str) -> None:
        """Carry out a script, all of it or nothing; raises FirewallError."""
        self._run([f"{self._command}-restore", "-w", "10", "--noflush"], script)

    def _run(self, command: list[str], script: str = "") -> str:
        try:
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, timeout=LIMIT_S, env=_environment()
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FirewallError(f"The packet filter does not answer: {error}.") from error
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line and not line.startswith("#")]
            raise FirewallError(
                f"The packet filter refused ({Path(command[0]).name}): {said[0] if said else 'no reason given'}"
            )
        return done.stdout


def _environment() -> dict[str, str]:
    """For iptables: the legacy one locks a file that belongs to root, which a service with capabilities alone may
    not open. The kernel refuses a change that was made meanwhile, so a lock of our own loses nothing but time."""
    env = {**os.environ, "LC_ALL": "C"}
    common = Path("/run/xtables.lock")
    if os.geteuid() != 0 and not (common.exists() and os.access(common, os.R_OK, effective_ids=True)):
        env["XTABLES_LOCKFILE"] = __file__  # any readable file can be locked, and every launcher has this one
    return env


class Firewall:
    """The wall of one instance, in both families. Not for several threads at once."""

    def __init__(self, wall: Layout) -> None:
        v4 = Family.find("iptables")
        if v4 is None:
            raise FirewallMissing("There is no iptables on this machine: install the package iptables.")
        self._wall = wall
        self._v4 = _Keeping(v4, wall)
        v6 = Family.find("ip6tables")
        self._v6 = _Keeping(v6, wall) if v6 else None

    def ensure(self, targets: Iterable[Target]) -> bool:
        """Have the rules for these targets in place; True if anything had to be changed. Raises FirewallError."""
        changed = self._v4.ensure(chains(self._wall, targets))
        if self._v6 is not None:
            changed = self._v6.ensure(closed_chains(self._wall)) or changed
        return changed

    def remove(self) -> None:
        """Leave no rule and no chain of this instance; raises FirewallError."""
        for kept in (self._v4, self._v6):
            if kept is not None:
                kept.remove()


class _Keeping:
    """One family's part of the wall."""

    def __init__(self, family: Family, wall: Layout) -> None:
        self._family, self._wall = family, wall
        self._wanted: Chains = {}
        self._as_read: Chains = {}  # each iptables has a spelling of its own for what it was told

    def ensure(self, wanted: Chains) -> bool:
        there = self._family.read()
        if wanted == self._wanted and self._stands(there):
            return False
        self._family.apply(building_script(self._wall, there, wanted))
        now_there = self._family.read()
        self._wanted, self._as_read = wanted, {chain: now_there.get(chain, []) for chain in wanted}
        lengths = {chain: len(rules) for chain, rules in self._as_read.items()}
        if not self._stands(now_there) or lengths != {chain: len(rules) for chain, rules in wanted.items()}:
            self._wanted = {}
            raise FirewallError(
                "The packet filter took our rules and does not have them: something removes them."
            )
        return True

    def _stands(self, there: Chains) -> bool:
        return hooked(self._wall, there) and all(
            there.get(chain) == rules for chain, rules in self._as_read.items()
        )

    def remove(self) -> None:
        script = removing_script(self._wall, self._family.read())
        if script:
            self._family.apply(script)
        self._wanted = {}
