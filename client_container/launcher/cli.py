"""The command of a volunteer's host: dockercomp-launcher up | down | status | gateway | serve."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client_container.launcher.clients import detached, keeper
from client_container.launcher.clients.plan import Plan, config_digest, own_labels
from client_container.launcher.clients.reconcile import ALIVE, Found
from client_container.launcher.clients.request import Request, read_key
from client_container.launcher.errors import LauncherError
from client_container.launcher.log import log_to
from client_container.launcher.state import UIDS, StateFolder

if TYPE_CHECKING:
    from client_container.launcher.clients.engine import ClientEngine

STOP_LIMIT_S = 60.0  #: longest that `down` waits for a launcher to remove its containers


class Complaint(click.ClickException):
    """One sentence for the person at the keyboard."""

    exit_code = 2


def checked_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """The name of an instance, if it may be one: it becomes part of folder, container and volume names."""
    if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name) is None:
        raise click.BadParameter("a name is 1 to 32 small letters, digits and dashes.")
    return name


def instance_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which every command finds its instance, handed on as `state`."""

    def with_state(*, name: str, home: Path, **options: Any) -> None:
        with _complaining():
            command(state=StateFolder(home.absolute() / "launcher", name), **options)

    with_state.__name__, with_state.__doc__ = command.__name__, command.__doc__
    with_state.__dict__.update(command.__dict__)
    named = click.option(
        "--name", callback=checked_name, default="default", show_default=True, help="Instance."
    )
    home = click.option(
        "--home",
        envvar="DOCKERCOMP_HOME",
        default="var",
        show_default=True,
        type=click.Path(path_type=Path, file_okay=False),
        help="State folder (DOCKERCOMP_HOME).",
    )
    return named(home(with_state))


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  dockercomp-launcher up --server https://science.example.org --key-file my.key --containers 4 --detach
  dockercomp-launcher status
  dockercomp-launcher down
""",
)
@click.version_option(package_name="dockercomp")
def main() -> None:
    """Keep client containers running on this machine, and remove them again."""


UP_EXAMPLE = """\b
Example:
  dockercomp-launcher up --server http://192.0.2.7:8765 --key-file my.key --containers 4 --detach
"""


@main.command(epilog=UP_EXAMPLE)
@instance_options
@click.option("--server", envvar="DOCKERCOMP_SERVER", required=True, help="URL of the source server.")
@click.option(
    "--key-file",
    envvar="DOCKERCOMP_KEY_FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="File with the account's key (DOCKERCOMP_KEY_FILE).",
)
@click.option("--containers", type=click.IntRange(1, UIDS), default=1, show_default=True)
@click.option("--image", default="dockercomp/client", show_default=True, help="Name or id, on this machine.")
@click.option(
    "--cpus", type=click.FloatRange(0.01), default=1.0, show_default=True, help="For each container."
)
@click.option("--memory", default="512m", show_default=True, help="For each container, like 512m or 2g.")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="As in docker run; may be repeated.")
@click.option("--host-name", envvar="DOCKERCOMP_HOST_NAME", help="What the server may call this machine.")
@click.option("--detach", is_flag=True, help="Go to the background, and return when all containers run.")
@click.option(
    "--wait", type=click.FloatRange(1), default=120, show_default=True, help="Longest --detach waits, s."
)
@click.option("--log-file", hidden=True, type=click.Path(path_type=Path))
def up(state: StateFolder, detach: bool, wait: float, log_file: Path | None, **options: Any) -> None:
    """Keep N hardened client containers alive until SIGTERM, Ctrl-C or `down`."""
    request = Request(**options)
    key = read_key(request.key_file)
    engine = _engine()
    plan = request.plan(
        instance=state.instance,
        host=state.host(),
        image_id=engine.image_id(request.image),
        key=key,
        processors=engine.processors,
    )
    if detach:
        _detach(state, request, engine, plan, limit_s=wait)
        return
    with state.running():
        log_to(log_file)
        state.ask({"containers": request.containers, "image": plan.image, "server": plan.server})
        _stay(keeper.Keeper(engine, plan, request.containers, key, time.monotonic))


@main.command(epilog="\b\nExample:\n  dockercomp-launcher down\n")
@instance_options
@click.option("--purge", is_flag=True, help="Remove their volumes too, with results not yet delivered.")
def down(state: StateFolder, purge: bool) -> None:
    """Stop the launcher of this instance and remove its containers, and nothing else."""
    engine = _engine()
    labels = _labels(state)
    removed = len(engine.find(labels)) if labels else 0
    detached.stop(state, limit_s=STOP_LIMIT_S)
    volumes = 0
    if labels:
        with state.running():
            keeper.remove_all(engine, engine.find(labels))
            volumes = engine.remove_volumes(labels) if purge else 0
    kept = f"{volumes} volumes removed" if purge else "volumes kept"
    click.echo(f"Instance {state.instance}: {removed} client containers removed, {kept}.")


@main.command(epilog="\b\nExample:\n  dockercomp-launcher status --json\n")
@instance_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(state: StateFolder, as_json: bool) -> None:
    """Say what runs."""
    engine = _engine()
    labels = _labels(state)
    facts = _facts(state, engine.find(labels) if labels else [])
    click.echo(json.dumps(facts, indent=1) if as_json else _report(facts))


@main.command(epilog="\b\nExample:\n  dockercomp-launcher gateway\n")
@click.option("--image", help="Also make sure that this image is here.")
@click.option(
    "--jobs-in",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --image: and that sandboxes can have their files in this folder.",
)
def gateway(image: str | None, jobs_in: Path | None) -> None:
    """Print the address under which containers reach this machine; exit code 2 if no engine answers."""
    with _complaining():
        engine = _engine()
        if image is not None:
            found = engine.image_id(image)
            if jobs_in is not None:
                from client_container.launcher.service.able import require_able

                engine.check()
                require_able(found, jobs_in.absolute())
        click.echo(engine.gateway)


@main.command(epilog="\b\nExample:\n  dockercomp-launcher serve --etc /etc/dockercomp\n")
@click.option(
    "--etc",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with launcher.json, policy.toml and account.key, as the installer writes them.",
)
@click.option("--log-file", hidden=True, type=click.Path(path_type=Path))
@click.option("--sensors", hidden=True, default="/", type=click.Path(path_type=Path, file_okay=False))
def serve(etc: Path, log_file: Path | None, sensors: Path) -> None:
    """Be the launcher of an installed instance: jobs in sandboxes, within the volunteer's policy.

    Runs in the foreground until SIGTERM, and then leaves nothing in the Docker engine. See dockercomp-volunteer.
    """
    with _complaining():
        _engine_sdk()
        from client_container.launcher.service.serve import serve as run

        log_to(log_file)
        run(etc.absolute(), root=sensors)


@main.command(epilog="\b\nExample:\n  dockercomp-launcher clear --etc /etc/dockercomp\n")
@click.option(
    "--etc",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with launcher.json, as for serve.",
)
def clear(etc: Path) -> None:
    """Remove what a killed `serve` left: containers, network, packet filter, mount. Says nothing if there is none."""
    with _complaining():
        _engine_sdk()
        from client_container.launcher.service.clear import clear as run

        if removed := run(etc.absolute()):
            click.echo(f"Containers of a launcher that was killed: {removed} removed.")


@contextlib.contextmanager
def _complaining() -> Iterator[None]:
    try:
        yield
    except LauncherError as error:
        raise Complaint(str(error)) from error
    except PermissionError as error:
        raise Complaint(f"This user may not use {error.filename}.") from error


def _engine() -> ClientEngine:
    return _engine_sdk()()


def _engine_sdk() -> type[ClientEngine]:
    try:
        from client_container.launcher.clients.engine import ClientEngine
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "docker":
            raise
        raise Complaint(
            "dockercomp-launcher needs the launcher extra: pip install 'dockercomp[launcher]'"
        ) from missing
    return ClientEngine


def _labels(state: StateFolder) -> dict[str, str] | None:
    """What this instance's containers carry; None if it never had any here."""
    host_id = state.find_host_id()
    return own_labels(state.instance, host_id) if host_id else None


def _detach(
    state: StateFolder, request: Request, engine: ClientEngine, plan: Plan, *, limit_s: float
) -> None:
    digest = config_digest(plan)

    def running() -> list[Found]:
        return [one for one in engine.find(plan.own_labels()) if one.state in ALIVE and one.config == digest]

    arguments = [f"--name={state.instance}", f"--home={state.launcher.parent}", *request.arguments()]
    pid = detached.start(state, arguments, running, count=request.containers, limit_s=limit_s)
    click.echo(
        f"{request.containers} client containers of instance {state.instance} are running; "
        f"the launcher is pid {pid}, its log {state.log_file}."
    )


def _stay(kept: keeper.Keeper) -> None:
    """Keep the containers alive until a signal, then remove them."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda _number, _frame: stop.set())
    keeper.keep(kept.step, stop.wait)
    kept.stop()


def _facts(state: StateFolder, found: Sequence[Found]) -> dict[str, Any]:
    pid, asked = state.running_pid(), state.asked()
    containers = [
        {
            "slot": one.slot,
            "id": one.id,
            "state": one.state,
            "image": one.image,
            "created": datetime.fromtimestamp(one.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for one in sorted(found, key=lambda one: (one.slot is None, one.slot or 0, one.created))
    ]
    return {
        "instance": state.instance,
        "launcher": {"running": pid is not None, "pid": pid, "log": str(state.log_file)},
        "wanted": asked.get("containers", 0) if pid is not None else 0,
        "running": sum(one.state == "running" for one in found),
        "server": asked.get("server"),
        "containers": containers,
    }


def _report(facts: dict[str, Any]) -> str:
    pid = facts["launcher"]["pid"]
    launcher = f"launcher running (pid {pid})" if pid else "no launcher running"
    lines = [
        f"Instance {facts['instance']}: {launcher}, "
        f"{facts['running']} of {facts['wanted']} client containers running."
    ]
    for one in facts["containers"]:
        lines.append(f"  {one['slot']}  {one['state']:<8}  {one['id'][:12]}  since {one['created']}")
    return "\n".join(lines)
