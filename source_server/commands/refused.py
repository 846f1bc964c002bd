"""How a command says no: one sentence on stderr and exit code 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from source_server.config import BadSetting, Settings, from_env

#: Modules that come with the `server` extra, by the name that an import would miss.
_SERVER_EXTRA = frozenset(
    {
        "aiosmtpd",
        "apscheduler",
        "bson",
        "cryptography",
        "flask",
        "gunicorn",
        "pydantic",
        "pymongo",
        "werkzeug",
    }
)


class Refused(click.ClickException):
    """A command that cannot be carried out; the message is one sentence."""

    exit_code = 2


class ServerGroup(click.Group):
    """A group whose commands may find the server's dependencies missing."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a missing dependency of the server becomes a sentence."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _SERVER_EXTRA:
                raise
            raise Refused(
                "dockercomp-server needs the server extra: pip install 'dockercomp[server]'"
            ) from error


def read_settings(home: Path | None = None) -> Settings:
    """The settings from the environment; `home` stands in for DOCKERCOMP_HOME. Raises Refused."""
    try:
        return from_env({**os.environ, **({"DOCKERCOMP_HOME": str(home)} if home else {})})
    except BadSetting as error:
        raise Refused(str(error)) from error
