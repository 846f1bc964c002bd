"""`dockercomp why`: why a chunk is not running, or what became of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click

from dockercomp.cli.connect import Sentence, server

WIDTH = 110  #: columns of the text
MOST = 5  #: attempts shown


@click.command(epilog="\b\nExample:\n  dockercomp why 5f2a9c1d7e3b4a60.17\n")
@click.argument("chunk")
def why(chunk: str) -> None:
    """Say why CHUNK is not running, or what became of it.

    CHUNK is TASK.N: the first two columns of the results.
    """
    if "." not in chunk:
        raise Sentence(f"A chunk is TASK.N, such as {chunk}.0: the first two columns of the results.")
    for line in lines(server().why(chunk)):
        click.echo(line)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What, why, what next, and the last attempts."""
    yield from _wrapped(f"{found['chunk']} ({found['state']}): {found['summary']}", indent="  ")
    for reason in found["reasons"]:
        yield from _wrapped(f"  - {reason}", indent="    ")
    if found["next"]:
        yield from _wrapped(f"Next: {found['next']}", indent="  ")
    attempts = found["attempts"]
    if attempts:
        yield "Attempts, newest first:"
    for one in attempts[:MOST]:
        where = f"host {one['host']}" if one["host"] else "no host's own"
        yield f"  {one['stored']}  {where}  {one['signature'] or one['outcome']}  ({one['verdict']})"
    if len(attempts) > MOST:
        yield f"  and {len(attempts) - MOST} more."


def _wrapped(text: str, *, indent: str) -> list[str]:
    # Ids and commands are to be copied: they stay whole, dashes and all.
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
