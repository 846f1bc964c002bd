"""The command `dockercomp-client`: read the settings, put the parts together, run."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import click

from client_container.archives import Archives
from client_container.blobs import Blobs
from client_container.config import BadSetting, Settings, from_env
from client_container.connection import ServerConnection, client_version
from client_container.holdings import Holdings
from client_container.identity import HomeTaken, Identity, load_identity, lock_home
from client_container.logs import set_up_logs
from client_container.machine import Label, has_devices, machine_labels, without_gpus
from client_container.membership import Membership
from client_container.protocol import FEATURES, Introduction
from client_container.runtime.arrival import Supply
from client_container.runtime.launcher_line import LauncherAway, LauncherLine
from client_container.runtime.limits import limit_this_process, memory_mb
from client_container.runtime.process import JOB_UID, ProcessRuntime, prepare_parent
from client_container.runtime.sandbox import SandboxRuntime, first_stats, introduced
from client_container.service import Service
from client_container.spool import Spool
from client_container.state_file import StateFile, WatchedConnection
from client_container.stock import Stock, sweep

log = logging.getLogger("client_container")

EPILOG = """\b
Examples:
  DOCKERCOMP_SERVER=https://server.example DOCKERCOMP_KEY_FILE=key.txt \\
  DOCKERCOMP_ALLOW='[["/usr/bin/awk", "{print $1 + $2}"]]' dockercomp-client
  DOCKERCOMP_KEY_FILE=/run/key DOCKERCOMP_ALLOW='*' dockercomp-client --verbose

\b
Settings, from the environment:
  DOCKERCOMP_SERVER     the source server (http://127.0.0.1:8765)
  DOCKERCOMP_KEY_FILE   file with your account's key (required)
  DOCKERCOMP_ALLOW      programs that jobs may start: * (only inside a container
                        of its own) or a JSON list of command lines (required)
  DOCKERCOMP_HOME       identity and unsent results (./var/client)
  DOCKERCOMP_RUNTIME    process, or sandbox behind a launcher (process)
  DOCKERCOMP_LAUNCHER_SOCKET  its socket (required with sandbox, where
                        DOCKERCOMP_ALLOW means nothing)
  DOCKERCOMP_IMAGE      the image this client runs in
  DOCKERCOMP_HOST_ID    UUID of the machine (kept in the home)
  DOCKERCOMP_HOST_NAME  a name for the machine
  DOCKERCOMP_LABELS     JSON object, like {"room": "attic"}
  DOCKERCOMP_CPUS       processors a job may use (1)
  DOCKERCOMP_MEMORY_MB  memory a job may use (what this process may)
  DOCKERCOMP_SPOOL_MB   room for unsent results (64)
  DOCKERCOMP_FILES      files that jobs read; several clients may share the
                        folder (in the home)
  DOCKERCOMP_FILES_MB   room for them (4096)

\b
Exit codes: 0 stopped by a signal, 1 broken, 2 a setting or the account's key
is wrong, 3 the server needs a newer client.
"""


class CannotStart(click.ClickException):
    """One sentence for the volunteer; exit code 2."""

    exit_code = 2


def _in_container() -> bool:
    """Whether this is a container: engines leave a mark in it."""
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--verbose", is_flag=True, help="Log every single chunk.")
@click.version_option(client_version(), prog_name="dockercomp-client")
def main(verbose: bool) -> None:
    """Compute chunks for a source server, one at a time, until stopped."""
    set_up_logs(verbose=verbose)
    try:
        settings = from_env(os.environ)
        if settings.runtime == "process" and settings.allow.nothing:
            raise BadSetting(
                "DOCKERCOMP_ALLOW allows no program, so there is nothing to run; write a JSON list of command "
                'lines like [["/usr/bin/awk", "{print $1 + $2}"]], or * inside a container of its own.'
            )
        if settings.allow.everything and not _in_container():
            raise BadSetting(
                "DOCKERCOMP_ALLOW is *, which is for containers of the client's own; here, write a JSON list of "
                'command lines like [["/usr/bin/awk", "{print $1 + $2}"]].'
            )
        service = _service(settings)
    except (BadSetting, HomeTaken) as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(
            f"DOCKERCOMP_HOME: the client cannot work in its folders ({error.strerror or error}: {error.filename})."
        ) from error
    code, sentence = service.run()
    if sentence:
        click.echo(f"Error: {sentence}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread may still wait for a server that hangs; nothing it holds needs an orderly end.
    os._exit(code)


def _service(settings: Settings) -> Service:
    lock_home(settings.home)  # held until this process ends
    identity = load_identity(settings.home)
    holdings = Holdings()
    connection = WatchedConnection(settings.server, settings.account_key, StateFile(settings.home))
    who, line = _introduction(settings, identity), None
    if settings.launcher_socket is not None:
        line = LauncherLine(settings.launcher_socket)
        who = _introduced(who, line)
    membership = Membership(connection, who, holdings)
    blobs = Blobs(connection, membership)
    runtime = _sandbox(settings, connection, line, blobs) if line else _process_runtime(settings, blobs)
    spool = Spool(settings.home / "spool", limit_bytes=settings.spool_bytes)
    spool.open()
    sweep(settings.home / "files", now=time.time())
    return Service(
        connection=connection,
        membership=membership,
        holdings=holdings,
        spool=spool,
        runtime=runtime,
        blobs=blobs,
    )


def _introduction(settings: Settings, identity: Identity) -> Introduction:
    return Introduction(
        container=identity.container,
        host=settings.host_id or identity.host,
        host_name=settings.host_name,
        # The machine's own word counts, the launcher's most: what a volunteer adds goes by other names.
        labels={**settings.labels, **_own_labels(settings), **settings.host_labels},
        cpus=settings.cpus,
        memory_mb=settings.memory_mb or memory_mb(),
        disk_mb=settings.disk_mb or _free_mb(settings.home),
        runtimes=(settings.runtime,),
        image=settings.image,
        features=FEATURES,  # behind a launcher: those that it says
    )


def _own_labels(settings: Settings) -> dict[str, Label]:
    """What we see of the machine; whether jobs in sandboxes get its devices only the launcher knows."""
    hidden = settings.runtime == "sandbox" or (_in_container() and not has_devices())
    return without_gpus(machine_labels()) if hidden else machine_labels()


def _free_mb(home: Path) -> int | None:
    """MiB that are free where jobs have their files; None: nobody knows."""
    try:
        return shutil.disk_usage(home).free // 2**20
    except OSError:
        return None


def _introduced(who: Introduction, line: LauncherLine) -> Introduction:
    """What we say of ourselves, with what the launcher says; raises BadSetting when there is none."""
    try:
        return introduced(who, first_stats(line))
    except LauncherAway as error:
        raise BadSetting(f"DOCKERCOMP_LAUNCHER_SOCKET: {error}") from error


def _sandbox(
    settings: Settings, connection: ServerConnection, line: LauncherLine, blobs: Blobs
) -> SandboxRuntime:
    files = settings.home / "files"
    return SandboxRuntime(line, files=files, fetch=Archives(connection, files), blobs=blobs)


def _process_runtime(settings: Settings, blobs: Blobs) -> ProcessRuntime:
    uid = JOB_UID if os.geteuid() == 0 else None
    limit_this_process(processes=uid is not None)
    log.warning(
        "the process runtime is no sandbox", extra={"jobs_run_as": uid if uid is not None else os.geteuid()}
    )
    return ProcessRuntime(
        parent=prepare_parent(settings.home, uid=uid),
        allow=settings.allow,
        path=settings.path,
        image=settings.image,
        cpus=settings.cpus,
        uid=uid,
        supply=Supply(
            Stock(settings.files or settings.home / "cache", limit_bytes=settings.files_bytes), blobs
        ),
        outbox=settings.home / "files",
    )


if __name__ == "__main__":
    main()
