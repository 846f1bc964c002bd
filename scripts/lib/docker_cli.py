"""The docker command, and the one complaint that every build script makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

INPUT_LABEL = "dockercomp.input"  #: an image's hash of all that went into it


class Cannot(Exception):
    """Something that is missing or failed; the message is one sentence for the person at the keyboard."""


@dataclass(frozen=True)
class Image:
    """An image on this machine."""

    id: str  #: sha256:...
    input: str  #: value of INPUT_LABEL, empty when it has none


def docker(*arguments: str, timeout: float | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run the docker command and return its stdout; raises Cannot with the last line it said."""
    command = [os.environ.get("DOCKER", "docker"), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError:
        raise Cannot("There is no docker command on this machine.") from None
    except subprocess.TimeoutExpired:
        raise Cannot(f"docker {arguments[0]} did not end within {timeout:.0f} s.") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise Cannot(f"docker {arguments[0]} failed: {said[-1]}")
    return done.stdout.strip()


def require_engine() -> None:
    """Raise Cannot unless a Docker engine answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout=20)
    except Cannot as error:
        raise Cannot(f"No Docker engine answers, and images are built by one. ({error})") from error


def find_image(reference: str) -> Image | None:
    """The image of that tag or id, or None when this machine has none."""
    template = '{{.Id}} {{if .Config.Labels}}{{index .Config.Labels "' + INPUT_LABEL + '"}}{{end}}'
    try:
        said = docker("image", "inspect", "--format", template, reference)
    except Cannot as error:
        if "no such image" in str(error).lower():
            return None
        raise
    image_id, _, label = said.partition(" ")
    return Image(image_id, label.strip())
