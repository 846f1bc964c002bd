"""The whole product on this machine, driven through its public commands only."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent


class Product:
    """A source server of its own in a temporary home, with clients of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DOCKERCOMP_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "DOCKERCOMP_HOME": str(home),
            "DOCKERCOMP_SERVER": self.address,
            "DOCKERCOMP_KEY_FILE": str(home / "scientist.key"),
        }

    def run(self, *argv: str, status: int = 0) -> str:
        """The standard output of a command that must end with that status."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, (
            f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
        )
        return done.stdout

    def log(self) -> str:
        """The end of the server's log."""
        path = self.home / "server" / "up.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def pids(self, *parts: str) -> list[int]:
        """Processes of this home's server whose command line has all these parts."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ours = any(one.startswith(f"DOCKERCOMP_HOME={self.home}".encode()) for one in environment)
            if ours and all(part in command for part in parts):
                found.append(int(entry.name))
        return found

    def rows(self, task: str) -> list[dict[str, str]]:
        """The table of results as it is now."""
        target = self.home / "table.csv"
        self.run("dockercomp", "results", "--task", task, "-o", str(target))
        with target.open(newline="") as lines:
            return list(csv.DictReader(lines))


@contextmanager
def running(*options: str, settings: dict[str, str] | None = None) -> Iterator[Product]:
    """`dockercomp-server up --detach` with these options, and a scientist's key; stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="dockercomp-product-"))
    # Jobs of a root's processes run as another user, who has to get here.
    home.chmod(0o755)
    product = Product(home)
    product.env.update(settings or {})
    try:
        product.run("dockercomp-server", "up", "--detach", "--bind", f"127.0.0.1:{product.port}", *options)
        key_file = product.env["DOCKERCOMP_KEY_FILE"]
        product.run(
            "dockercomp-server", "account", "add", "ada", "--role", "scientist", "--key-file", key_file
        )
        yield product
    finally:
        product.run("dockercomp-server", "down")
        shutil.rmtree(home)


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for a condition; fails with `what` after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on, on any address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
