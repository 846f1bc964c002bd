"""Dependencies of an image, installed outside it: the small base has no pip. Kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docker_cli import Cannot

#: wheels that any CPython from 3.10 on can use, on any machine
PURE = ("--python-version", "3.10", "--implementation", "py", "--abi", "none", "--platform", "any")


def for_python(version: str, machine: str) -> tuple[str, ...]:
    """Options for wheels of one CPython `version` ("3.11") on Linux with the GNU C library."""
    platforms = [f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    chosen = [word for name in platforms for word in ("--platform", name)]
    return ("--python-version", version, "--implementation", "cp", *chosen)


def install(requirements: Path, options: Sequence[str], cache: Path) -> Path:
    """A folder with the packages of `requirements`, to be copied; raises Cannot."""
    recipe = "\n".join([*options, requirements.read_text()])
    folder = cache / f"wheels-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=cache) as work:
        target = Path(work) / "lib"
        pip_install(requirements, options, target, Path(work))
        # Command scripts point at the Python of this machine, not at the image's.
        shutil.rmtree(target / "bin", ignore_errors=True)
        target.rename(folder)
    return folder


def pip_install(requirements: Path, options: Sequence[str], target: Path, work: Path) -> None:
    """Run pip for the folder `target`; raises Cannot with the last line it said."""
    fixed = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-compile", "--target", str(target)]
    done = subprocess.run(
        [*pip(work), "install", *fixed, *options, "--requirement", str(requirements)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            "it said nothing"
        ]
        raise Cannot(f"pip could not install {requirements}: {errors[-1]}")


def pip(work: Path) -> list[str]:
    """A command that runs pip: this Python's own, or that of an environment made for the purpose."""
    own = [sys.executable, "-m", "pip"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([*own, "--version"], **quiet).returncode == 0:
        return own
    if subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], **quiet).returncode == 0:
        return [str(work / "venv" / "bin" / "python"), "-m", "pip"]
    raise Cannot(f"{sys.executable} has neither pip nor venv: install python3-venv.")
