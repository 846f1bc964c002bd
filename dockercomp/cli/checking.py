"""The options of `submit` that say how answers are checked."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option("--quorum", type=int, help="Answers that must agree.  [default: the project's, or 1]"),
    click.option("--replicas", type=int, help="Attempts handed out at first.  [default: the quorum]"),
    click.option("--most", type=int, help="Attempts at most.  [default: three times the quorum]"),
    click.option(
        "--distinct",
        type=click.Choice(["account", "host", "container"]),
        help="What two answers must not share.  [default: account]",
    ),
    click.option(
        "--same",
        type=click.Choice(["any", "arch", "cpu-family"]),
        help="What all answers to a chunk must share.  [default: any]",
    ),
    click.option(
        "--compare", type=click.Choice(["exact", "json"]), help="When answers agree.  [default: exact]"
    ),
    click.option("--relative", type=float, help="With --compare json: tolerance as a share of the number."),
    click.option("--absolute", type=float, help="With --compare json: tolerance as a difference."),
    click.option("--validator", metavar="COMMAND", help="Your own command that compares answers."),
    click.option("--validator-files", is_flag=True, help="It gets the files of input and answers in /in."),
    click.option("--adaptive", is_flag=True, help="Hosts with a long record need no second opinion."),
    click.option("--canaries", type=float, help="Share of claims that test a host with a settled chunk."),
)


def checking_options(command: Command) -> Command:
    """Give a command these options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def validation(chosen: dict[str, Any]) -> dict[str, Any] | None:
    """Take these options out of `chosen`; the task's `validation`, or None where nothing was said."""
    comparator: dict[str, Any] = {
        name: value
        for name, value in (
            ("kind", chosen.pop("compare")),
            ("relative", chosen.pop("relative")),
            ("absolute", chosen.pop("absolute")),
        )
        if value is not None
    }
    command, with_files = chosen.pop("validator"), chosen.pop("validator_files")
    if with_files and command is None:
        raise click.UsageError("--validator-files goes with --validator COMMAND.")
    if command is not None:
        program = {"action": shlex.split(command), **({"files": True} if with_files else {})}
        comparator |= {"kind": "validator", "validator": program}
    plain = {
        name: chosen.pop(name) for name in ("quorum", "replicas", "most", "distinct", "same", "canaries")
    }
    wished = {name: value for name, value in plain.items() if value is not None}
    if chosen.pop("adaptive"):
        wished["adaptive"] = True
    if comparator:
        wished["comparator"] = comparator
    if wished and "quorum" not in wished:
        wished["quorum"] = 2
    return wished or None
