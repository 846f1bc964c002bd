"""Real parts for the end-to-end tests: a Docker engine, the client image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

ROOT = Path(__file__).parents[2]


def require(reason: str) -> None:
    """Skip the test for want of a real part; under CI=true fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to have it: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A Docker engine that answers."""
    try:
        client = docker.DockerClient.from_env(timeout=120)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        require(f"no Docker engine answers ({error})")
        raise
    yield client
    client.close()


@pytest.fixture(scope="session")
def client_image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of the client image, built from this checkout if it is not there yet."""
    home = tmp_path_factory.mktemp("images")
    done = subprocess.run(
        [ROOT / "scripts" / "build-images", "client"],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKERCOMP_HOME": str(home)},
    )
    if done.returncode == 2:
        require(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return (home / "images" / "client.id").read_text().strip()
