"""Real parts for the end-to-end tests: a Docker engine, the client image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest
from parts import require

ROOT = Path(__file__).parents[2]


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
def built_image(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Build an image (and the client image below it) from this checkout, unless it is there; its id."""
    home = tmp_path_factory.mktemp("images")

    def build(name: str) -> str:
        done = subprocess.run(
            [ROOT / "scripts" / "build-images", *dict.fromkeys(["client", name])],
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKERCOMP_HOME": str(home)},
        )
        if done.returncode == 2:
            require(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stderr
        return (home / "images" / f"{name}.id").read_text().strip()

    return build


@pytest.fixture(scope="session")
def client_image(built_image: Callable[[str], str]) -> str:
    """Id of the client image."""
    return built_image("client")


@pytest.fixture(scope="session")
def hostile_image(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Id of an image whose one program does whatever a hostile project might."""
    from sandboxes import make_hostile_image

    if os.geteuid() != 0:
        require("job containers get uids of their own, which takes root")
    image = make_hostile_image(engine, tmp_path_factory.mktemp("hostile"))
    yield image
    engine.images.remove(image, force=True)
