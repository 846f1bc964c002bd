"""`dockercomp-server up | down | serve | status`: the server as one thing to start and stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from source_server.commands.mail import certificate
from source_server.commands.refused import Refused, read_settings

if TYPE_CHECKING:
    from source_server.built_in import BuiltIn
    from source_server.config import Settings
    from source_server.detach import Started
    from source_server.server_home import Address

_STOP_WITHIN_S = 90.0  #: the graces of all parts, and then some

_bind = click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="HOST:PORT",
    help="Where to listen; may be given more than once.  [default: 127.0.0.1:8765]",
)


@click.command(
    epilog="""\b
Examples:
  dockercomp-server up
  dockercomp-server up --detach
  dockercomp-server up --bind 127.0.0.1:8765 --bind 172.17.0.1:8765
  dockercomp-server up --containers 4
  dockercomp-server up --processes 2 --allow '[["/usr/bin/factor"]]'
"""
)
@_bind
@click.option("--detach", is_flag=True, help="Return once the server answers, and leave it running.")
@click.option(
    "--beat-seconds",
    type=click.FloatRange(0.2, 600),
    help="Seconds between two heartbeats of a container.  [default: DOCKERCOMP_BEAT_S, else 20]",
)
@click.option(
    "--containers",
    type=click.IntRange(0, 900),
    default=0,
    help="Run so many client containers of its own, each job in a sandbox (as root).",
)
@click.option(
    "--image", default="dockercomp/client", show_default=True, help="The image of those containers."
)
@click.option(
    "--processes",
    type=click.IntRange(0, 1000),
    default=0,
    help="Run clients as plain processes, without any sandbox.",
)
@click.option(
    "--allow", default="", metavar="JSON", help="What those may run: [[PROGRAM, FIXED ARGUMENT, ...], ...]."
)
@click.option("--mail", metavar="HOST:PORT", help="Take in mail there, for receivers of the kind mail.")
def up(
    binds: Sequence[str],
    detach: bool,
    beat_seconds: float | None,
    containers: int,
    image: str,
    processes: int,
    allow: str,
    mail: str | None,
) -> None:
    """Start the source server: MongoDB, web and housekeeping, and keep them running.

    With --containers it also runs client containers of its own on this machine's Docker engine, through the
    launcher, which puts every job into a sandbox as on a volunteer's machine; the server then listens on the engine's
    bridge too. That takes root. --processes runs clients without any sandbox.
    """
    from source_server.assembly import run_server
    from source_server.built_in import BuiltIn, etc_of
    from source_server.detach import run_detached
    from source_server.event_log import log_events
    from source_server.server_home import CannotStart, ServerHome
    from source_server.stores.mongod_binary import MongodUnavailable
    from source_server.supervisor import StartFailed

    settings = _without_private_key(read_settings())
    if beat_seconds is not None:
        settings = replace(settings, beat_s=beat_seconds)
    addresses = _addresses(binds)
    mail_address = _addresses([mail])[0] if mail else None
    if mail_address is not None:
        certificate(settings)  # before anything runs: what takes the mail is a process of its own
    if processes and not allow:
        raise Refused("--processes needs --allow, which names the programs that they may run.")
    built_in = BuiltIn(containers=containers, image=image, processes=processes, allow=allow)
    if not containers and ServerHome(settings.server_home).find_runner() is None:
        _clear_left(settings.home)  # the launcher that would take it up again is not started
    if containers:
        _require_root()
        addresses, built_in = _with_bridge(addresses, built_in, settings.home)
    try:
        if detach:
            started = run_detached(settings, _foreground(addresses, beat_seconds, built_in, mail_address))
            _say_started(started, etc=etc_of(settings.home) if containers else None)
        else:
            log_events()
            run_server(settings, addresses, built_in=built_in, mail=mail_address, when_ready=_announce)
    except (CannotStart, MongodUnavailable, StartFailed) as error:
        raise Refused(str(error)) from error


def _say_started(started: Started, *, etc: Path | None) -> None:
    """What runs, and what to do next; `etc`: of the launcher that runs its client containers."""
    click.echo(f"The source server answers on {started.url} (pid {started.pid}, log {started.log}).")
    click.echo("Stop it with: dockercomp-server down")
    if etc is not None:
        click.echo("Its client containers start once the sandbox's self-test has passed; see what it found:")
        click.echo(f"  dockercomp-volunteer --etc {etc} self-test")


@click.command(epilog="\b\nExample:\n  dockercomp-server down\n")
def down() -> None:
    """Stop the source server of this home (DOCKERCOMP_HOME), cleanly, its own client containers with it.

    Of one that was killed it removes what its client containers left on this machine.
    """
    from source_server.server_home import ServerHome

    settings = read_settings()
    home = ServerHome(settings.server_home)
    runner = home.find_runner()
    if runner is None:
        home.forget()
        click.echo(f"No source server runs in {home.path}.")
        _clear_left(settings.home)
        return
    if runner.pid is None:
        raise Refused(
            f"A source server runs in {home.path}, but its process id is not known: stop it by hand."
        )
    # The lock is held and names this process, so it is ours and not a later one with the same id.
    os.kill(runner.pid, signal.SIGTERM)
    if not _becomes_true(lambda: home.find_runner() is None, within_s=_STOP_WITHIN_S):
        raise Refused(f"The source server (pid {runner.pid}) has not stopped after {_STOP_WITHIN_S:g} s.")
    click.echo(f"The source server (pid {runner.pid}) is stopped.")
    _clear_left(settings.home)


@click.command(
    epilog="""\b
Examples:
  dockercomp-server serve
  DOCKERCOMP_MONGO_URI=mongodb://db.example.org/?replicaSet=rs0 dockercomp-server serve --bind 0.0.0.0:8765
"""
)
@_bind
def serve(binds: Sequence[str]) -> None:
    """Become the web part alone (gunicorn), for those who have their own process manager.

    The database is DOCKERCOMP_MONGO_URI, or the embedded one while `up` runs it.
    """
    from source_server.assembly import WEB_APPLICATION, child_environment, gunicorn_argv
    from source_server.server_home import CannotStart, ServerHome, require_free
    from source_server.stores.mongod_files import find_uri

    settings = _without_private_key(read_settings())
    addresses = _addresses(binds)
    uri = settings.mongo_uri or find_uri(ServerHome(settings.server_home).mongodb)
    if uri is None:
        raise Refused("serve needs a database: set DOCKERCOMP_MONGO_URI, or use `dockercomp-server up`.")
    try:
        require_free(addresses)
    except CannotStart as error:
        raise Refused(str(error)) from error
    argv = gunicorn_argv(settings, addresses, WEB_APPLICATION)
    os.execve(argv[0], argv, child_environment(settings, uri, os.environ))  # noqa: S606


@click.command(epilog="\b\nExample:\n  dockercomp-server status\n")
def status() -> None:
    """Say whether the source server of this home runs, and where it answers."""
    from source_server.server_home import ServerHome

    home = ServerHome(read_settings().server_home)
    runner = home.find_runner()
    if runner is None:
        click.echo(f"No source server runs in {home.path}.")
    else:
        url = home.find_url()
        click.echo(f"Process {runner.pid} {f'answers on {url}' if url else 'is starting or stopping'}.")


def _without_private_key(settings: Settings) -> Settings:
    """The same settings; Refused when the release key lies where a server could lose it."""
    from source_server.release.shelf import PrivateKeyHere, require_no_private_key

    try:
        require_no_private_key(settings.releases)
    except PrivateKeyHere as error:
        raise Refused(str(error)) from error
    return settings


def _addresses(binds: Sequence[str]) -> list[Address]:
    from source_server.server_home import DEFAULT_ADDRESS, Address, BadAddress

    try:
        return [Address.parse(text) for text in binds] or [DEFAULT_ADDRESS]
    except BadAddress as error:
        raise Refused(str(error)) from error


def _clear_left(home: Path) -> None:
    """Remove what the server's own client containers left when it was killed; raises Refused where that fails."""
    from source_server.built_in import CannotClear, clear_left

    try:
        if said := clear_left(home):
            click.echo(said)
    except CannotClear as error:
        raise Refused(str(error)) from error


def _require_root() -> None:
    """Raises Refused for a user who can build neither the sandbox's walls nor the users that jobs run as."""
    if os.geteuid() != 0:
        raise Refused(
            "--containers needs root: each job gets a user of its own, and client containers a packet filter around "
            "them. Start the server with sudo, or use --processes, which has no sandbox."
        )


def _with_bridge(addresses: list[Address], built_in: BuiltIn, home: Path) -> tuple[list[Address], BuiltIn]:
    """Listen where containers reach this machine, too: only the launcher may ask the engine where that is."""
    from source_server.built_in import LAUNCHER

    able = ["--image", built_in.image, "--jobs-in", str(home / "built-in")]
    asked = subprocess.run([*LAUNCHER, "gateway", *able], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise Refused(asked.stderr.strip().removeprefix("Error: ") or "The launcher does not answer.")
    bridge = _addresses([f"{asked.stdout.strip()}:{addresses[0].port}"])[0]
    return list(dict.fromkeys([*addresses, bridge])), replace(built_in, containers_server=bridge.url)


def _foreground(
    addresses: Sequence[Address], beat_seconds: float | None, built_in: BuiltIn, mail: Address | None
) -> list[str]:
    """The same command without --detach."""
    argv = [sys.executable, "-m", "source_server.cli", "up"]
    for address in addresses:
        argv += ["--bind", str(address)]
    if built_in.containers:
        argv += ["--containers", str(built_in.containers), "--image", built_in.image]
    if mail is not None:
        argv += ["--mail", str(mail)]
    if built_in.processes:
        argv += ["--processes", str(built_in.processes), "--allow", built_in.allow]
    return [*argv, *(["--beat-seconds", f"{beat_seconds:g}"] if beat_seconds is not None else [])]


def _announce(url: str) -> None:
    click.echo(f"The source server answers on {url}; stop it with Ctrl-C.", err=True)


def _becomes_true(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
