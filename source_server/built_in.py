"""The server's own client containers, so that it is useful before any volunteer comes.

They are what volunteers run: the launcher's command keeps containers alive and runs every job in a sandbox; or, by the
operator's explicit word, the client's command runs as plain processes. They get the server's address and an account's
key, and nothing else of the server: not its environment, not its database.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from source_server.supervisor import Command, Errand, Part

LAUNCHER = (sys.executable, "-m", "client_container.launcher")
CLIENT = (sys.executable, "-m", "client_container")

MB, GB = 2**20, 2**30
FIRST_UID, UIDS, RANGES = 1_000_000, 2000, 1000  #: users of containers and jobs: a range for each home
LONGEST_SOCKET = 100  #: letters of a socket's path; the kernel takes 107
_GENERATED = "# Written by dockercomp-server up"


class CannotClear(Exception):
    """What is left of the server's own containers cannot be removed; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """How many of the server's own clients to run, and as what."""

    containers: int = 0  #: client containers, kept by the launcher, their jobs in sandboxes
    image: str = "dockercomp/client"  #: their image, by name or id
    containers_server: str = ""  #: the server's address as containers reach it
    processes: int = 0  #: plain client processes
    allow: str = ""  #: what those may run (DOCKERCOMP_ALLOW)


def built_in_parts(
    built_in: BuiltIn, *, home: Path, server: str, server_env: Callable[[], Mapping[str, str]]
) -> list[Part]:
    """The parts that run the server's own clients; none of them if none are wanted.

    `server` is the address for processes; `server_env` is for the errand that makes their account.
    """
    if not built_in.containers and not built_in.processes:
        return []
    key_file = etc_of(home) / "account.key"
    argv = [sys.executable, "-m", "source_server.cli", "account", "built-in", "--key-file", str(key_file)]
    parts: list[Part] = [Errand("account", argv, env=server_env)]
    if built_in.containers:
        write_installation(built_in, home)
        parts.append(_launcher(home))
    for number in range(built_in.processes):
        parts.append(_process(built_in, home, key_file, server, number))
    return parts


def clear_left(home: Path) -> str:
    """Have the launcher remove what its containers left when all was killed; its sentence. Raises CannotClear."""
    if not (etc_of(home) / "launcher.json").exists():
        return ""
    argv = [*LAUNCHER, "clear", "--etc", str(etc_of(home))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_clean())
    if done.returncode != 0:
        raise CannotClear(
            "Of the server's own client containers something may be left: "
            + (done.stderr.strip().removeprefix("Error: ") or f"the launcher ended with {done.returncode}.")
            + " Then run `dockercomp-server down` again."
        )
    return done.stdout.strip()


def etc_of(home: Path) -> Path:
    """The folder with the settings of the server's own launcher, as an installer would write them."""
    return home / "built-in" / "etc"


def write_installation(built_in: BuiltIn, home: Path) -> None:
    """Write what `dockercomp-launcher serve` reads: who it is, and how much of this machine it may use."""
    folder = home / "built-in"
    etc_of(home).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # jobs' users have to get to their own folders
    number = int(hashlib.sha256(str(home).encode()).hexdigest()[:12], 16)
    instance = f"built-in-{number % 16**6:06x}"
    control = folder / "control.sock"
    facts = {
        "instance": instance,
        "server": built_in.containers_server,
        "image": built_in.image,
        "first_uid": FIRST_UID + UIDS * (number % RANGES),
        "version": "built-in",
        "home": str(folder),
        "makes_disk": True,
        "control": str(control)
        if len(str(control)) <= LONGEST_SOCKET
        else f"/run/dockercomp-{instance}/control.sock",
    }
    (etc_of(home) / "launcher.json").write_text(json.dumps(facts, indent=1) + "\n")
    policy = etc_of(home) / "policy.toml"
    known = policy.read_text() if policy.exists() else None
    policy.write_text(policy_text(built_in.containers, known, **_machine(home)))


def policy_text(containers: int, known: str | None, *, processors: int, memory: int, free: int) -> str:
    """The launcher's policy for so many containers; one that the operator has changed keeps all but their number."""
    if known is not None and not _is_generated(known):
        changed, count = re.subn(r"(?m)^containers\s*=.*$", f"containers = {containers}", known)
        if count:
            return changed
    # A job more than the machine has processors for would only take memory from the others.
    lines = [
        "[limits]",
        f"containers = {containers}",
        f"cpus = {min(containers, processors)}",
        f'memory = "{max(64 * containers, min(512 * containers, memory // 2 // MB))}m"',
        f'disk = "{max(512, min(max(2048, 256 * containers), free // 4 // MB))}m"',
        "",
        "[images]",
        f'largest = "{max(64, min(5 * 1024, free // 4 // MB))}m"',
        f'total = "{max(64, min(20 * 1024, free // 3 // MB))}m"',
        "",
        "[when]",  # the operator has asked for them: also on a laptop
        "on_battery = true",
        "metered = true",
    ]
    body = "\n".join(lines) + "\n"
    return f"{_GENERATED} ({_digest(body)}): once you change it, it stays as you want it.\n{body}"


def _is_generated(text: str) -> bool:
    first, _, body = text.partition("\n")
    return first.startswith(f"{_GENERATED} ({_digest(body)})")


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def _machine(home: Path) -> dict[str, int]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processors": os.cpu_count() or 1, "memory": memory, "free": shutil.disk_usage(home).free}


def _launcher(home: Path) -> Part:
    argv = [*LAUNCHER, "serve", "--etc", str(etc_of(home))]
    return Command("launcher", argv, env=_clean, grace_s=40.0)


def _process(built_in: BuiltIn, home: Path, key_file: Path, server: str, number: int) -> Part:
    def env() -> dict[str, str]:
        return {
            **_clean(),
            "DOCKERCOMP_HOME": str(home / "clients" / str(number)),
            "DOCKERCOMP_SERVER": server,
            "DOCKERCOMP_KEY_FILE": str(key_file),
            "DOCKERCOMP_ALLOW": built_in.allow,
            "DOCKERCOMP_HOST_ID": _host_id(home),
            "DOCKERCOMP_LABELS": f'{{"slot": {number}}}',
        }

    return Command(f"client-{number}", CLIENT, env=env, grace_s=8.0)


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKERCOMP_")}


def _host_id(home: Path) -> str:
    """This machine's UUID as a host, made once."""
    path = home / "clients" / "host-id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{uuid.uuid4()}\n")
    return path.read_text().strip()
