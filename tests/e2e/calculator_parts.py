"""The calculators' images, and twins of them that no engine has."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from parts import require

ROOT = Path(__file__).parents[2]
LABEL = "dockercomp.test=calculations"

Entry = dict[str, Any]


@pytest.fixture(scope="session")
def calculators(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The manifest's entries, of images that are built from this checkout."""
    home = tmp_path_factory.mktemp("calculators")
    built = subprocess.run(
        [ROOT / "scripts" / "build-calculators"],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKERCOMP_HOME": str(home)},
    )
    if built.returncode == 2:
        require(built.stderr.strip().splitlines()[-1])
    assert built.returncode == 0, built.stderr
    entries: list[dict[str, Any]] = json.loads((home / "images" / "calculators.json").read_text())[
        "calculators"
    ]
    return entries


def run(*argv: str, stdin: str | None = None) -> str:
    """The standard output of a docker command that must succeed."""
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def made_of(entry: Entry, *lines: str) -> Entry:
    """An image that stands on a calculator's, and is another one."""
    tag = f"dockercomp-test/calculator:{uuid.uuid4().hex[:12]}"
    recipe = "\n".join([f"FROM {entry['tag']}", f"LABEL {LABEL} dockercomp.twin={uuid.uuid4().hex}", *lines])
    run("build", "--quiet", "--tag", tag, "-", stdin=recipe + "\n")
    return {**entry, "tag": tag, "image": run("image", "inspect", "--format", "{{.Id}}", tag)}


@contextmanager
def forgotten(entries: list[Entry]) -> Iterator[None]:
    """Have the engine forget these images; those that came again are the launcher's to remove, or else ours."""
    for one in entries:
        run("rmi", one["tag"])
    try:
        yield
    finally:
        for one in entries:
            subprocess.run(["docker", "rmi", "--force", one["image"]], capture_output=True)
