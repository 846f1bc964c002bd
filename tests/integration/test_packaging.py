"""The volunteer's side installs without the server's dependencies, and each command says which extra it lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a venv with the base install only, from a built wheel."""
    folder = tmp_path_factory.mktemp("bare")
    venv, wheels = folder / "venv", folder / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    install = [*pip, "--python", str(venv), "install"]
    locked = [*install, "--require-hashes", "-r", ROOT / "locks" / "client.txt"]
    subprocess.run(locked, check=True, capture_output=True)
    subprocess.run([*install, "--no-deps", *wheels.glob("*.whl")], check=True, capture_output=True)
    return venv / "bin"


def run(command: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *argv], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})


def test_none_of_the_servers_libraries_come_along(bare: Path) -> None:
    names = {
        one.name.partition("-")[0].lower()
        for one in (bare.parent / "lib").glob("python*/site-packages/*.dist-info")
    }

    assert {"requests", "click", "tqdm", "dockercomp"} <= names
    assert not names & {"flask", "gunicorn", "pymongo", "pydantic", "apscheduler", "docker", "ansible_core"}


@pytest.mark.parametrize(
    "command", ["dockercomp", "dockercomp-client", "dockercomp-server", "dockercomp-launcher"]
)
def test_every_command_shows_its_help_with_examples(bare: Path, command: str) -> None:
    shown = run(bare / command, "--help")

    assert shown.returncode == 0 and "Example" in shown.stdout, shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("dockercomp-server", "up"), "server"),
        (("dockercomp-server", "migrate"), "server"),
        (("dockercomp-server", "account", "list"), "server"),
        (("dockercomp-launcher", "gateway"), "launcher"),
        (("dockercomp-launcher", "status"), "launcher"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it(bare: Path, command: tuple[str, ...], extra: str) -> None:
    said = run(bare / command[0], *command[1:])

    assert said.returncode == 2
    assert (
        said.stderr.strip()
        .splitlines()[-1]
        .endswith(f"needs the {extra} extra: pip install 'dockercomp[{extra}]'")
    )


def test_the_client_says_which_setting_it_needs(bare: Path) -> None:
    said = run(bare / "dockercomp-client")

    assert said.returncode == 2 and "DOCKERCOMP_KEY_FILE" in said.stderr and "Traceback" not in said.stderr
