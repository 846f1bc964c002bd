"""A real registry on loopback, with images pushed by the real engine."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts import require
from product import free_port


def docker(*argv: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


class Registry:
    """Debian's docker-registry on a port of its own."""

    def __init__(self, folder: Path, *, auth: str = "", host: str = "127.0.0.1") -> None:
        self.folder = folder / "registry"
        self.name = f"{host}:{free_port()}"
        config = folder / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder}}}}}\nhttp: {{addr: {self.name}}}\n{auth}"
        )
        self.log = (folder / "registry.log").open("wb")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline and self.process.poll() is None, (
                folder / "registry.log"
            ).read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        host, _, port = self.name.partition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return True
        return False

    def push(self, image: str) -> str:
        """Push an image and forget it here; how jobs name it."""
        name = f"{self.name}/fits"
        docker("tag", image, f"{name}:1")
        docker("push", "--quiet", f"{name}:1")
        [digest] = [
            one
            for one in json.loads(docker("inspect", "--format", "{{json .RepoDigests}}", image))
            if name in one
        ]
        docker("rmi", "--force", image)
        return str(digest)

    def blobs(self) -> list[Path]:
        return sorted(self.folder.rglob("data"), key=lambda path: path.stat().st_size)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        require("docker-registry is not here: apt-get install docker-registry")
    running = Registry(tmp_path)
    yield running
    running.close()
