"""A volunteer's machine under test: a container with systemd as process 1 and an engine of its own, near-privileged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import machine_image  # noqa: E402
from docker_cli import Cannot  # noqa: E402

DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
LABEL = "dockercomp.test=install"

# What an ordinary container lacks and a machine has. SYS_RESOURCE is more than some hosts of these tests can give.
NEARLY_PRIVILEGED = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined"),
    *("--device-cgroup-rule", "a *:* rwm", "--cgroupns=private", "-e", "container=docker"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "-v", "/var/lib/docker"),
    *("--add-host", "server.test:host-gateway"),
)

# Where a difference between before and after is the system's own: its package manager, its logs, its backup files, what
# it makes anew at each start, and the engine's folder, which is a volume here.
NOT_OURS = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/docker"),
    *(
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/lib/systemd",
        "/var/lib/private",
        "/var/lib/ucf",
        "/var/lib/pam",
    ),
    *("/etc/ld.so.cache", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-"),
    *("/etc/subgid-", "/etc/.pwd.lock", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/mtab"),
)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that ended."""

    status: int
    output: str  #: of stdout and stderr together


@dataclass
class Machine:
    """One running machine."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)

    def try_(self, command: str, *, seconds: float = 600) -> Done:
        """Run a shell command as root, with no terminal; whatever its status."""
        given = [word for name, value in self.environment.items() for word in ("-e", f"{name}={value}")]
        done = subprocess.run(
            [DOCKER, "exec", *given, self.name, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        return Done(status=done.returncode, output=done.stdout)

    def sh(self, command: str, *, seconds: float = 600) -> str:
        """Run a shell command that must succeed; what it said, without the last line feed."""
        done = self.try_(command, seconds=seconds)
        assert done.status == 0, f"{command}: {done.status}\n{done.output[-6000:]}"
        return done.output.rstrip("\n")

    def put(self, path: str, content: str, *, mode: str = "0644") -> None:
        """Write a file on the machine."""
        subprocess.run(
            [DOCKER, "exec", "-i", self.name, "sh", "-c", f"cat >{path} && chmod {mode} {path}"],
            input=content.encode(),
            check=True,
        )

    def until(self, command: str, *, seconds: float = 60, what: str = "") -> str:
        """Wait until a shell command succeeds; what it said."""
        ends = time.monotonic() + seconds
        while (done := self.try_(command)).status != 0:
            assert time.monotonic() < ends, (
                f"not within {seconds:g} s: {what or command}\n{done.output[-2000:]}"
            )
            time.sleep(0.2)
        return done.output.rstrip("\n")

    def boot(self) -> None:
        """Wait until systemd has started everything that is to start."""
        self.until("systemctl is-system-running | grep -Eq 'running|degraded'", what="the machine's start")

    def reboot(self) -> None:
        """Stop it as a shutdown would, and start it again."""
        subprocess.run([DOCKER, "restart", "--time", "60", self.name], check=True, stdout=subprocess.DEVNULL)
        self.boot()

    def status(self) -> dict[str, Any]:
        """What the volunteer's command says for programs."""
        return dict(json.loads(self.sh("dockercomp-volunteer status --json")))

    def snapshot(self) -> dict[str, list[str]]:
        """What is on the machine now, as lists to compare."""
        pruned = " ".join(f"-path {path} -prune -o" for path in NOT_OURS)
        listed = {
            "files": f"find / -xdev {pruned} -printf '%p %y %m %U:%G %l\\n' | sort",
            "contents": "find /etc /usr/local /root -xdev -type f "
            + " ".join(f"! -path '{path}'" for path in NOT_OURS if path.startswith("/etc"))
            + " -exec sha256sum {} + | sort -k 2",
            "users": "cat /etc/passwd /etc/group /etc/subuid /etc/subgid",
            "units": "systemctl list-unit-files --no-legend --no-pager | awk '{ print $1, $2 }' | sort",
            "active units": "systemctl list-units --no-legend --plain --no-pager --type=service,timer,mount,socket"
            " | awk '{ print $1 }' | grep -v -e '^run-' -e '^user' -e '^apt-daily' -e '^dpkg-db' | sort",
            "packages": "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' | grep ^i | sort",
            "containers": "! command -v docker >/dev/null || docker ps -a --format '{{.ID}} {{.Image}} {{.Names}}'",
            "images": "! command -v docker >/dev/null || "
            "docker images -a --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}'",
            "networks": "! command -v docker >/dev/null || docker network ls --format '{{.Name}} {{.Driver}}' | sort",
            "links": "ip -o link | awk '{ print $2 }' | sed 's/@.*//' | grep -v -e '^veth' | sort",
            "forwarding": "cat /proc/sys/net/ipv4/ip_forward",
            "iptables": _rules("iptables-save"),
            "ip6tables": _rules("ip6tables-save"),
            "mounts": "awk '{ print $2 }' /proc/self/mounts | "
            "grep -v -e '^/proc' -e '^/sys' -e '^/run' -e '/var/lib/docker/' | sort",
        }
        return {name: self.sh(command).splitlines() for name, command in listed.items()}


def _rules(program: str) -> str:
    """Rules without counters and moments; a table that only exists is as good as none."""
    return (
        f"! command -v {program} >/dev/null || {program} 2>/dev/null | "
        "sed -e '/^#/d' -e 's/ \\[[0-9]*:[0-9]*\\]//' -e '/^COMMIT/d' -e '/^[*]/d' -e '/^:[A-Z]* ACCEPT$/d'"
    )


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there no more (-) and what came (+), by kind; empty when all is as it was."""
    found = {}
    for kind in before:
        gone = [f"- {line}" for line in before[kind] if line not in set(after[kind])]
        came = [f"+ {line}" for line in after[kind] if line not in set(before[kind])]
        if gone or came:
            found[kind] = gone + came
    return found


@contextmanager
def machine(suite: str, stage: str, *, options: Sequence[str] = ()) -> Iterator[Machine]:
    """A fresh machine, gone at the end. Raises Cannot where no image of it can be made."""
    image = machine_image.machine_image(suite, stage)
    name = f"dockercomp-test-{suite}-{stage}-{time.monotonic_ns() % 10**9}"
    started = [
        DOCKER,
        "run",
        "-d",
        "--name",
        name,
        "--hostname",
        "lent",
        "--label",
        LABEL,
        *NEARLY_PRIVILEGED,
    ]
    subprocess.run([*started, *options, image], check=True, stdout=subprocess.DEVNULL)
    try:
        made = Machine(name)
        made.boot()
        yield made
    finally:
        subprocess.run([DOCKER, "rm", "-f", "-v", name], stdout=subprocess.DEVNULL, check=False)


__all__ = ["Cannot", "Done", "Machine", "difference", "machine"]
