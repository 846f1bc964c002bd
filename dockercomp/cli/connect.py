"""What every command begins with: the server that the environment names, and sentences for what cannot be done."""

from __future__ import annotations

import os

import click

from dockercomp.api import Server
from dockercomp.cli.plain import PlainServer, plain
from dockercomp.config import from_env

POLL_S = 1.0
INTERRUPTED = 130  #: exit code after Ctrl-C, as everywhere


class Sentence(click.ClickException):
    """A command that cannot be carried out; the message is one sentence."""

    exit_code = 2


def server() -> Server:
    """The source server, with the key of the settings; warnings go to stderr."""
    settings = from_env(os.environ)
    return PlainServer(settings.server, settings.key, warned=_warn)


def _warn(sentence: str) -> None:
    click.echo(f"Warning: {plain(sentence)}", err=True)
