"""The volunteer's command: dockercomp-volunteer status | pause | resume | scale | limits | logs | ... | uninstall."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from client_container.launcher.errors import LauncherError
from client_container.launcher.policy.policy import BadPolicy
from client_container.launcher.policy.text import read_duration
from client_container.launcher.service.control import ControlError, ask
from client_container.launcher.service.installation import (
    ETC,
    INSTANCE,
    BadInstallation,
    Installation,
    etc_of,
    read_installation,
)
from client_container.launcher.volunteer import words
from client_container.launcher.volunteer.changing import change_policy
from client_container.launcher.volunteer.programs import become, relay, require_installed

QUICK_S, SETTLE_S, SELF_TEST_S = 15.0, 90.0, 600.0  #: longest wait for an answer of each kind
DRAIN_S = 60
PREFIX = Path(sys.prefix).parent  #: the launcher's environment lies in it, the release beside that


class Complaint(click.ClickException):
    """One sentence for the person at the keyboard."""

    exit_code = 2


@contextlib.contextmanager
def complaining() -> Iterator[None]:
    """Every refusal is one sentence and exit code 2."""
    try:
        yield
    except LauncherError as error:
        raise Complaint(words.printable(str(error))) from error
    except PermissionError as error:
        raise Complaint(
            f"This user may not use {error.filename}: put sudo in front of the command."
        ) from error


def command(
    group: click.Group, *arguments: Any, **settings: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose function gets the installation first; its refusals are sentences."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def called(*values: Any, **options: Any) -> None:
            with complaining():
                function(find_installation(), *values, **options)

        made: click.Command = group.command(*arguments, **settings)(called)
        return made

    return decorate


def find_installation() -> Installation:
    """The installation that this command is about; raises BadInstallation."""
    named = click.get_current_context().find_root().params
    etc = etc_of(named["instance"], named["etc"])
    if not (etc / "launcher.json").exists():
        other = "" if named["instance"] == "default" else f" as instance {named['instance']}"
        raise BadInstallation(f"dockercomp is not installed here{other} ({etc} has no launcher.json).")
    return read_installation(etc)


def checked_instance(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """The name of an instance, if it may be one."""
    if INSTANCE.fullmatch(name) is None:
        raise click.BadParameter("a name is 1 to 32 small letters, digits and dashes.")
    return name


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  dockercomp-volunteer status
  dockercomp-volunteer pause --for 2h
  dockercomp-volunteer limits set memory 4g hours "mon-fri 18:00-24:00; sat,sun always"
  dockercomp-volunteer uninstall
""",
)
@click.option(
    "--instance",
    default="default",
    show_default=True,
    callback=checked_instance,
    help="Which one, of several.",
)
@click.option("--etc", hidden=True, default=ETC, type=click.Path(path_type=Path, file_okay=False))
@click.version_option(package_name="dockercomp")
def main(instance: str, etc: Path) -> None:
    """Look at what this machine computes, and decide how much of it is lent."""


@command(main, epilog="\b\nExamples:\n  dockercomp-volunteer status\n  dockercomp-volunteer status --json\n")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(here: Installation, as_json: bool) -> None:
    """Say what runs, for whom, and what was computed so far."""
    facts = ask(here.control, "status", seconds=QUICK_S)
    say(facts, as_json, words.status)


@command(main, epilog="\b\nExamples:\n  dockercomp-volunteer pause\n  dockercomp-volunteer pause --for 2h\n")
@click.option("--for", "duration", metavar="TIME", help="Like 30m, 2h or 1d; without it: until `resume`.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def pause(here: Installation, duration: str | None, as_json: bool) -> None:
    """Freeze all jobs at once, and say when they are frozen. Exit code 1 if one still runs.

    After ten minutes they are stopped, their checkpoints kept, and their chunks given back.
    """
    minutes = None if duration is None else _duration(duration) / 60
    facts = ask(here.control, "pause", seconds=SETTLE_S, minutes=minutes)
    say(facts, as_json, words.paused)
    if not words.at_rest(facts):
        sys.exit(1)


@command(main, epilog="\b\nExample:\n  dockercomp-volunteer resume\n")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def resume(here: Installation, as_json: bool) -> None:
    """End a pause. Says so if something else still stops jobs."""
    say(ask(here.control, "resume", seconds=SETTLE_S), as_json, words.resumed)


@command(main, epilog="\b\nExample:\n  dockercomp-volunteer scale 2\n")
@click.argument("containers", type=int)
def scale(here: Installation, containers: int) -> None:
    """Change the number of client containers, and wait until so many run. The total limits stay as they are."""
    change_policy(here, [("limits.containers", str(containers))])


@main.group(
    epilog="\b\nExamples:\n  dockercomp-volunteer limits show\n  dockercomp-volunteer limits set idle_only yes\n"
)
def limits() -> None:
    """Look at the policy, or change it."""


@command(limits, epilog="\b\nExample:\n  dockercomp-volunteer limits show --json\n")
@click.option("--json", "as_json", is_flag=True, help="For programs; sizes in bytes.")
def show(here: Installation, as_json: bool) -> None:
    """Say which limits the launcher holds to."""
    say(ask(here.control, "limits", seconds=QUICK_S), as_json, words.limits)


@command(
    limits,
    "set",
    epilog="""\b
Examples:
  dockercomp-volunteer limits set cpus 2 memory 4g
  dockercomp-volunteer limits set transfer_a_day none
  dockercomp-volunteer limits set hours "mon-fri 18:00-24:00; sat,sun always"
  dockercomp-volunteer limits set allowed sums,digits
""",
)
@click.argument("pairs", nargs=-1, required=True, metavar="KEY VALUE [KEY VALUE ...]")
def set_limits(here: Installation, pairs: tuple[str, ...]) -> None:
    """Write limits into policy.toml, and wait until they hold.

    The file is written anew, with its standard comments. `none` removes a limit that may be absent.
    """
    if len(pairs) % 2:
        raise BadPolicy(f"{pairs[-1]} has no value; write KEY VALUE, like memory 4g.")
    change_policy(here, list(zip(pairs[::2], pairs[1::2], strict=True)))


@command(main, epilog="\b\nExamples:\n  dockercomp-volunteer logs\n  dockercomp-volunteer logs -f 0\n")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written.")
@click.option("-n", "--lines", type=click.IntRange(0), default=200, show_default=True)
@click.argument("slot", type=click.IntRange(0), required=False)
def logs(here: Installation, follow: bool, lines: int, slot: int | None) -> None:
    """Show the launcher's log, or that of the client container in SLOT."""
    going = ["-f"] if follow else []
    if slot is None:
        unit = unit_of(here.instance)
        relay(["journalctl", "--no-pager", "-o", "cat", "-u", unit, "-n", str(lines), *going])
    clients = ask(here.control, "status", seconds=QUICK_S)["clients"]
    found = [one["id"] for one in clients if one["slot"] == slot]
    if not found:
        raise ControlError(f"There is no client container in slot {slot}.")
    relay(["docker", "logs", "--tail", str(lines), *going, found[0]])


@command(main, "self-test", epilog="\b\nExample:\n  dockercomp-volunteer self-test\n")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def self_test(here: Installation, as_json: bool) -> None:
    """Try out every wall of the sandbox. Exit code 1 if one does not hold: then no job runs here."""
    facts = ask(here.control, "self_test", seconds=SELF_TEST_S)
    say(facts, as_json, words.self_test)
    if facts["verdict"] != "passed":
        sys.exit(1)


@command(
    main,
    epilog="\b\nExamples:\n  dockercomp-volunteer history\n  dockercomp-volunteer history -n 100 --json\n",
)
@click.option(
    "-n", "--count", type=click.IntRange(0, 1000), default=20, show_default=True, help="Jobs and days."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def history(here: Installation, count: int, as_json: bool) -> None:
    """Say what ran, for whom, from which image, how long, with which transfer; and the contribution so far."""
    say(ask(here.control, "history", seconds=QUICK_S, count=count), as_json, words.history)


@command(main, epilog="\b\nExample:\n  dockercomp-volunteer update\n")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--allow-downgrade", is_flag=True, help="Also take a release that is older than the installed one."
)
def update(here: Installation, yes: bool, allow_downgrade: bool) -> None:
    """Install the server's current release, if it is signed with the key of the first installation."""
    script = PREFIX / "payload" / "install" / "install.sh"
    require_installed(script)
    options = [f"--server={here.server}", f"--prefix={PREFIX}", f"--release-key={ETC / 'release.pub'}"]
    if here.proxy:  # it may hold a password, which must not stand on a command line
        os.environ["DOCKERCOMP_INSTALL_PROXY"] = here.proxy
    options += [f"--ca-file={here.ca_file}"] if here.ca_file else []
    flags = {"--yes": yes, "--allow-downgrade": allow_downgrade, "--auto-update": here.auto_update}
    arguments = [part for option in options for part in option.split("=", 1)]
    become(["sh", str(script), *arguments, *(flag for flag, wanted in flags.items() if wanted)])


@command(
    main,
    epilog="\b\nExamples:\n  dockercomp-volunteer uninstall\n  dockercomp-volunteer uninstall --purge --yes\n",
)
@click.option(
    "--purge", is_flag=True, help="The Docker engine too, if we brought it and nothing else uses it."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(here: Installation, purge: bool, yes: bool) -> None:
    """Take everything back.

    No new work; running jobs finish or go back, within a minute; then all of ours is removed.
    """
    script = PREFIX / "payload" / "install" / "remove.py"
    require_installed(script)
    if os.geteuid() != 0:
        raise ControlError("Only root can uninstall: put sudo in front of the command.")
    if not yes:
        _agreed(
            f"Remove dockercomp from this machine{', the Docker engine included if we brought it' if purge else ''}?"
        )
    for name in here.siblings():
        _drain(name)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
    become([python, str(script), "--yes", *(["--purge"] if purge else [])])


def unit_of(instance: str) -> str:
    """The systemd unit of an instance."""
    return (
        "dockercomp-launcher.service" if instance == "default" else f"dockercomp-launcher@{instance}.service"
    )


def say(facts: dict[str, Any], as_json: bool, in_words: Callable[[dict[str, Any]], str]) -> None:
    """Print an answer, for programs or for people."""
    told = {name: value for name, value in facts.items() if name != "ok"}
    click.echo(json.dumps(told, indent=1) if as_json else words.printable(in_words(facts)))


def _drain(instance: str) -> None:
    """Have an instance leave its server; what that does not achieve is said, and no reason to stay."""
    top = click.get_current_context().find_root().params["etc"]
    click.echo(f"Leaving the server (instance {instance}); this takes {DRAIN_S} s at most.")
    try:
        here = read_installation(etc_of(instance, top))
        facts = ask(here.control, "drain", seconds=DRAIN_S + 60.0, within=DRAIN_S)
        click.echo(words.printable(words.drained(facts)))
    except LauncherError as error:
        click.echo(
            f"It could not be left in order ({words.printable(str(error))}) Results that were not delivered are "
            "lost; the server gives unfinished work to others within minutes."
        )


def _agreed(question: str) -> None:
    if not sys.stdin.isatty():
        raise ControlError("There is no terminal to ask on; add --yes to agree.")
    if not click.confirm(question):
        raise ControlError("Nothing was changed.")


def _duration(text: str) -> float:
    try:
        return read_duration(text)
    except ValueError as error:
        raise ControlError(f"--for must be {error}, not {text!r}.") from None


if __name__ == "__main__":
    main()
