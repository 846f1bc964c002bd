"""`dockercomp receiver hook`: the program that a bare repository runs after each push."""

from __future__ import annotations

import os

import click

from dockercomp.config import DEFAULT_SERVER
from dockercomp.hooks import post_receive


@click.command(
    epilog="""\b
Example, in the bare repository:
  dockercomp receiver hook r1f0c9e2b7a6d5c43 >hooks/post-receive && chmod 755 hooks/post-receive
  (umask 077 && echo "$SECRET" >dockercomp-secret)
"""
)
@click.argument("receiver")
@click.option("--server", help="The address under which the repository's machine reaches the source server.")
def hook(receiver: str, server: str | None) -> None:
    """Print the post-receive hook of a bare git repository, for the RECEIVER (kind git) with this id."""
    click.echo(
        post_receive(server or os.environ.get("DOCKERCOMP_SERVER") or DEFAULT_SERVER, receiver), nl=False
    )
