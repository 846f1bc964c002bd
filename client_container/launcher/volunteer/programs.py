"""Other programs that the command hands over to: logs, the installer, the remover."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from client_container.launcher.service.control import ControlError
from client_container.launcher.service.installation import (
    BadInstallation,
)
from client_container.launcher.volunteer import words


def require_installed(script: Path) -> None:
    """Raises BadInstallation unless the release brought this script."""
    if not script.exists():
        raise BadInstallation(f"{script} is not there: dockercomp was not put here by its installer.")


def relay(program: Sequence[str]) -> NoReturn:
    """Print what another program prints, without what a terminal would obey; its exit code is ours.

    Raises ControlError when it is not here.
    """
    try:
        running = subprocess.Popen(list(program), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise _missing(program[0]) from None
    text = codecs.getincrementaldecoder("utf-8")("replace")
    assert running.stdout is not None
    try:
        while part := os.read(running.stdout.fileno(), 65536):
            click.echo(words.printable(text.decode(part)), nl=False)
    except (KeyboardInterrupt, BrokenPipeError):  # how one ends a log that goes on
        running.terminate()
    sys.exit(max(0, running.wait()))


def become(program: Sequence[str]) -> NoReturn:
    """Go on as another program; raises ControlError when it is not here."""
    sys.stdout.flush()
    try:
        os.execvp(program[0], list(program))  # noqa: S606  # a list, no shell
    except FileNotFoundError:
        raise _missing(program[0]) from None


def _missing(program: str) -> ControlError:
    return ControlError(f"This needs the program {program}, which is not on this machine.")
