"""A source server for a measurement: mongod, gunicorn and housekeeping, as `dockercomp-server up` starts it."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from source_server.config import Settings
from source_server.server_home import ServerHome
from source_server.stores.database import Stores, open_stores
from source_server.stores.mongod_files import find_uri


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that runs."""

    url: str
    uri: str  #: of its MongoDB
    settings: Settings
    home: ServerHome

    def stores(self) -> Stores:
        """The stores of its database, for this process."""
        return open_stores(self.uri, self.settings.database, application="bench")


@contextmanager
def serving() -> Iterator[Served]:
    """Start a server in a temporary folder; it is stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="dockercomp-bench-"))
    env = {**os.environ, "DOCKERCOMP_HOME": str(home)}
    command = [sys.executable, "-m", "source_server.cli"]
    address = f"127.0.0.1:{free_port()}"
    subprocess.run([*command, "up", "--detach", "--bind", address], env=env, check=True, stdout=sys.stderr)
    try:
        settings = Settings(home=home)
        server_home = ServerHome(settings.server_home)
        uri = find_uri(server_home.mongodb)
        assert uri is not None
        yield Served(url=f"http://{address}", uri=uri, settings=settings, home=server_home)
    finally:
        subprocess.run([*command, "down"], env=env, check=True, stdout=sys.stderr)
        shutil.rmtree(home)


def end_on_sigterm() -> None:
    """Let SIGTERM end this program as an exception does: what it started is stopped first (main thread only)."""

    def end(*_: object) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)


def machine() -> dict[str, str | int | float]:
    """What it was measured on, and how busy that was with other things."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
