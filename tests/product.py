"""The whole product on this machine, driven through its public commands only."""

from __future__ import annotations

import csv
import os
import secrets
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

#: Ports for servers under test, outside the range from which systems take those of connections that go out.
PORTS = range(10_000, 20_000)
_given: list[socket.socket] = []  #: each has a name that says which port this process gave away


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
        with database_in_memory(home):
            yield from _up(product, *options)
    finally:
        shutil.rmtree(home)


def _up(product: Product, *options: str) -> Iterator[Product]:
    try:
        product.run("dockercomp-server", "up", "--detach", "--bind", f"127.0.0.1:{product.port}", *options)
        key_file = product.env["DOCKERCOMP_KEY_FILE"]
        product.run(
            "dockercomp-server", "account", "add", "ada", "--role", "scientist", "--key-file", key_file
        )
        yield product
    finally:
        product.run("dockercomp-server", "down")


@contextmanager
def database_in_memory(home: Path) -> Iterator[None]:
    """Let the data of this home's mongod lie where a write to the disk is not waited for."""
    data = tempfile.mkdtemp(prefix="dockercomp-product-", dir=in_memory())
    (home / "server").mkdir()
    (home / "server" / "mongodb").symlink_to(data)
    try:
        yield
    finally:
        shutil.rmtree(data)


def in_memory() -> str | None:
    """A folder in memory for what need not outlive the tests; None (the usual one) where there is not plenty of it."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shutil.disk_usage(shared).free < 4 * 2**30:
        return None
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return str(shared) if int(known["MemAvailable"].split()[0]) > 8 * 2**20 else None


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for a condition; fails with `what` after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on, on any address, and that no other process of these tests is given."""
    while True:
        port = secrets.choice(PORTS)
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0dockercomp-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError:
            name.close()
            continue
        _given.append(name)
        return port
