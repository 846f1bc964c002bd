"""Limits are changed where they stand, in policy.toml."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from client_container.launcher.policy.file import find_key, parse_policy, render_policy, shown, with_value
from client_container.launcher.policy.policy import BadPolicy, Policy
from client_container.launcher.policy.text import show_size
from client_container.launcher.service.control import ask
from client_container.launcher.service.installation import Installation
from client_container.launcher.volunteer import words

HOLD_S = 90.0  #: longest wait until new limits hold


def change_policy(here: Installation, pairs: Sequence[tuple[str, str]]) -> None:
    """Write a changed policy, have the launcher read it, and say what holds. Exit code 1 if not all of it does.

    Raises BadPolicy, ControlError, PermissionError.
    """
    before = parse_policy(here.policy_file.read_text())
    after = before
    for name, value in pairs:
        after = with_value(after, name, value)
    _fits(here, before, after)
    if after != before:
        _write(here.policy_file, render_policy(after))
    facts = ask(here.control, "reload", seconds=HOLD_S)
    for key in dict.fromkeys(find_key(name) for name, _ in pairs):
        value = getattr(after, key.field)
        click.echo(f"{key.path} = {'none' if value is None else shown(key, after)}")
    click.echo(words.printable(words.running(facts)))
    if facts["problem"] or not words.all_run(facts):
        sys.exit(1)


def _fits(here: Installation, before: Policy, after: Policy) -> None:
    """The disk image was made at the installation."""
    if after.disk <= before.disk or not here.slots.is_dir():
        return
    made = os.statvfs(here.slots)
    if os.path.ismount(here.slots) and after.disk > made.f_blocks * made.f_frsize * 1.1:
        size = show_size(made.f_blocks * made.f_frsize // 2**20 * 2**20)
        raise BadPolicy(
            f"limits.disk cannot grow beyond the {size} of the disk image that was made at the installation: "
            "uninstall, and install again with --disk."
        )


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, readable for everybody."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.chmod(0o644)
    partial.replace(path)
