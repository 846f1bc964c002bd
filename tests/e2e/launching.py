"""A launcher under test: its command, its state folder, its containers, and an end to all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

KEY = "an-account-key-that-nobody-may-see"
LIMIT_S = 60.0


def wait_for(what: Callable[[], Any], *, limit_s: float = LIMIT_S) -> Any:
    """The first true value of `what()`; an AssertionError after `limit_s` seconds."""
    ends = time.monotonic() + limit_s
    while not (value := what()):
        assert time.monotonic() < ends, f"not within {limit_s:.0f} s"
        time.sleep(0.1)
    return value


def run_inside(container: Container, program: str) -> Any:
    """What a Python program in a running container prints, as JSON; it runs confined as the container does."""
    outcome = container.exec_run(["python3", "-c", program])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.output)


@dataclass(frozen=True)
class Instance:
    """One launcher instance in a state folder."""

    engine: docker.DockerClient
    home: Path
    name: str
    image: str

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "client_container.launcher", *arguments, f"--name={self.name}"]

    def up_command(self, *arguments: str, containers: int = 2) -> list[str]:
        key_file = self.home / "key"
        key_file.write_text(KEY)
        given = ["--server=http://192.0.2.1:8765", f"--key-file={key_file}", f"--containers={containers}"]
        return self.command("up", *given, f"--image={self.image}", "--memory=64m", *arguments)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "DOCKERCOMP_HOME": str(self.home)}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=180)

    def up(self, *arguments: str, containers: int = 2) -> subprocess.CompletedProcess[str]:
        """Start it in the background; all its containers run when this returns."""
        done = self.run(self.up_command("--detach", *arguments, containers=containers))
        assert done.returncode == 0, done.stderr
        return done

    def down(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.run(self.command("down", *arguments))
        assert done.returncode == 0, done.stderr
        return done

    def status(self) -> dict[str, Any]:
        done = self.run(self.command("status", "--json"))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def labels(self) -> dict[str, str]:
        host = json.loads((self.home / "launcher" / "host.json").read_text())["id"]
        return {"dockercomp.instance": self.name, "dockercomp.host": host}

    def containers(self) -> dict[str, Container]:
        """Its running containers, by slot."""
        wanted = [f"{name}={value}" for name, value in self.labels.items()]
        found = self.engine.containers.list(filters={"label": wanted}, ignore_removed=True)
        return {one.labels["dockercomp.slot"]: one for one in found}

    def ids(self) -> dict[str, str]:
        return {slot: one.id for slot, one in self.containers().items() if one.id}

    def volumes(self) -> set[str]:
        wanted = [f"{name}={value}" for name, value in self.labels.items()]
        return {one.name for one in self.engine.volumes.list(filters={"label": wanted})}
