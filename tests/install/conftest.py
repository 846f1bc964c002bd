"""Real parts for the installer's tests: images of machines, the client image, a server behind TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import Lab, laboratory
from machines import DOCKER, ROOT, Cannot, Machine, machine
from parts import require

PACKAGES = {"nginx": "nginx-light", "mmdebstrap": "mmdebstrap", "openssl": "openssl"}


@pytest.fixture(scope="session")
def engine_for_machines() -> None:
    """An engine that can run machines, and the few programs around it, installed where that is possible."""
    answers = subprocess.run([DOCKER, "version"], capture_output=True) if shutil.which(DOCKER) else None
    if answers is None or answers.returncode != 0:
        require("no Docker engine answers")
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [package for name, package in PACKAGES.items() if shutil.which(name, path=path) is None]
    if not missing:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        require(f"installing {', '.join(missing)} needs root on Debian or Ubuntu")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=env)
        if done.returncode != 0:
            require(f"apt-get could not install {', '.join(missing)}: {done.stderr[-300:]}")


def built(name: str) -> str:
    """Id of an image of this checkout, built unless it is there."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [ROOT / "scripts" / "build-images", *dict.fromkeys(["client", name])],
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKERCOMP_HOME": home},
        )
        if done.returncode == 2:
            require(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stderr
        return (Path(home) / "images" / f"{name}.id").read_text().strip()


@pytest.fixture(scope="session")
def job_image(engine_for_machines: None) -> Iterator[Path]:
    """An image that adds pairs of numbers, as `docker save` writes it."""
    with tempfile.TemporaryDirectory(prefix="dockercomp-job-") as folder:
        archive = Path(folder) / "job.tar"
        subprocess.run([DOCKER, "save", "--output", archive, built("pairs")], check=True)
        yield archive


@pytest.fixture(scope="session")
def lab(engine_for_machines: None, mongod_binary: Path) -> Iterator[Lab]:
    """The server side, with a signed release."""
    with laboratory(built("client"), DOCKER) as running:
        yield running


def fresh_machine(
    stage: str, lab: Lab, *, suite: str = "bookworm", trusting: bool = True
) -> Iterator[Machine]:
    """A machine that knows the laboratory's authority: by its own store, as in an institute, or only as a file."""
    try:
        with machine(suite, stage) as made:
            made.environment["SERVER"] = lab.url
            made.put("/root/ca.pem", lab.ca)
            if trusting:
                made.put("/usr/local/share/ca-certificates/laboratory.crt", lab.ca)
                made.sh("update-ca-certificates")
            yield made
    except Cannot as error:
        require(str(error))
