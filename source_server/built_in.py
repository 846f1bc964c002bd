"""The server's own client containers, so that it is useful before any volunteer comes.

They are what volunteers run: the launcher's command keeps containers alive, or, by the operator's explicit word, the
client's command runs as plain processes. They get the server's address and an account's key, and nothing else of the
server: not its environment, not its database.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from source_server.supervisor import Command, Errand, Part

ACCOUNT = "built-in"
LAUNCHER = (sys.executable, "-m", "client_container.launcher")
CLIENT = (sys.executable, "-m", "client_container")


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """How many of the server's own clients to run, and as what."""

    containers: int = 0  #: client containers, kept by the launcher
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
    key_file = home / "server" / "built-in.key"
    argv = [sys.executable, "-m", "source_server.cli", "account", "add", ACCOUNT, "--role", "volunteer"]
    account = Errand("account", [*argv, "--key-file", str(key_file), "--if-missing"], env=server_env)
    parts: list[Part] = [account]
    if built_in.containers:
        parts.append(_launcher(built_in, home, key_file))
    for number in range(built_in.processes):
        parts.append(_process(built_in, home, key_file, server, number))
    return parts


def _launcher(built_in: BuiltIn, home: Path, key_file: Path) -> Part:
    # fmt: off
    argv = [
        *LAUNCHER, "up", "--name", ACCOUNT, "--containers", str(built_in.containers),
        "--image", built_in.image, "--server", built_in.containers_server, "--key-file", str(key_file),
    ]
    # fmt: on
    return Command("launcher", argv, env=lambda: {**_clean(), "DOCKERCOMP_HOME": str(home)}, grace_s=30.0)


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
