"""`dockercomp`: the scientist's command."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dockercomp.api import Progress, Server
from dockercomp.cli.connect import POLL_S, Sentence
from dockercomp.cli.connect import server as _server
from dockercomp.cli.errors import errors, requeue, rerun
from dockercomp.cli.submit import assign, submit
from dockercomp.cli.why import why
from dockercomp.failures import DockercompError, Refused, ServerUnavailable

NOT_FOUND = 404
PATIENCE = 60  #: polls without an answer before watching gives up
FIRST_PATIENCE = 10  #: the same before the first answer: the address may be wrong


class ScientistGroup(click.Group):
    """A group whose commands end with a sentence when the server or the settings say no."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors become sentences."""
        try:
            return super().invoke(ctx)
        except DockercompError as error:
            raise Sentence(str(error)) from error


@click.group(
    cls=ScientistGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  export DOCKERCOMP_SERVER=http://127.0.0.1:8765 DOCKERCOMP_KEY_FILE=ada.key
  dockercomp submit pairs.csv --project sums --rows-per-chunk 500 -- python3 /opt/job/add_pairs.py
  dockercomp assign --project sums
  dockercomp watch TASK
  dockercomp results --task TASK -o results.csv
""",
)
@click.version_option(package_name="dockercomp")
def main() -> None:
    """Send a computation to many machines and get one table of results back."""


@main.command(epilog="\b\nExample:\n  dockercomp watch 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def watch(task: str) -> None:
    """Show a progress bar with rate and time left until TASK is complete; exit code 1 if it failed."""
    from tqdm import tqdm

    server = _server()
    progress = _patiently(server, task, FIRST_PATIENCE)
    if progress.state == "waiting":
        click.echo("The task has not been started; do that with: dockercomp assign", err=True)
    told = set[str]()
    with tqdm(total=progress.total, unit="chunk", initial=progress.done + progress.failed) as bar:
        while not progress.ended:
            time.sleep(POLL_S)
            progress = _patiently(server, task, PATIENCE)
            bar.total = progress.total
            bar.update(progress.done + progress.failed - bar.n)
            if progress.failed or progress.resting:
                bar.set_postfix(failed=progress.failed, failing=progress.resting)
            for sentence in _news(task, progress):
                if sentence not in told:
                    told.add(sentence)
                    bar.write(sentence, file=sys.stderr)
    click.echo(f"{progress.outcome}: {progress.done} of {progress.total} chunks have a result.")
    if progress.outcome != "succeeded":
        raise SystemExit(1)


@main.command(epilog="\b\nExample:\n  dockercomp cancel 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def cancel(task: str) -> None:
    """End TASK for good: nothing more of it is handed out; results that are there stay."""
    _server().cancel(task)
    click.echo(f"{task} is cancelled.")


@main.command(epilog="\b\nExample:\n  dockercomp pause 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def pause(task: str) -> None:
    """Hand nothing of TASK out for now; what runs goes on."""
    _server().pause(task)
    click.echo(f"{task} is paused; go on with: dockercomp resume {task}")


@main.command(epilog="\b\nExample:\n  dockercomp resume 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def resume(task: str) -> None:
    """Go on with a paused TASK."""
    _server().resume(task)
    click.echo(f"{task} goes on.")


@main.command(
    epilog="""\b
Examples:
  dockercomp results --task 5f2a9c1d7e3b4a60 -o results.csv
  dockercomp results --project sums -o sums.csv
  dockercomp results --task 5f2a9c1d7e3b4a60 -o - | head
"""
)
@click.option("--task", help="Only this task.")
@click.option("--project", help="Only this project's tasks.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("results.csv"))
def results(task: str | None, project: str | None, output: Path) -> None:
    """Write the table of results: one line for each row of the input, at any time.

    After a broken download the same command goes on where it stopped.
    """
    if str(output) == "-":
        _server().copy_results(sys.stdout.buffer, task=task, project=project)
        return
    copied = _server().download_results(output, task=task, project=project)
    click.echo(f"{output}: {copied} bytes written.", err=True)


@main.command(epilog="\b\nExample:\n  dockercomp status\n")
def status() -> None:
    """Show your tasks, and the containers that are there."""
    server = _server()
    for task in server.tasks():
        outcome = f" ({task['outcome']})" if task["outcome"] else ""
        if task["state"] == "running":
            progress = server.progress(task["id"])
            outcome = f" {progress.done}/{progress.total}"
        click.echo(
            f"{task['id']}  {task['project']:<20} {task['state']}{outcome}  {task['rows']} rows  {task['name']}"
        )
        if task["paused"] and task["state"] == "running":
            click.echo(f"    paused: {task['paused_why']}" if task["paused_why"] else "    paused")
    containers = server.containers()
    live = [one for one in containers if one["state"] == "live"]
    hosts = {one["host"]["id"] for one in live}
    click.echo(f"{len(live)} live containers on {len(hosts)} hosts ({len(containers)} known).")


@main.command(
    epilog="""\b
Examples:
  dockercomp project sums
  dockercomp project sums --share 2 --assigned-only
"""
)
@click.argument("name")
@click.option("--share", type=float, help="What it may use of the machines, relative to other projects.")
@click.option(
    "--assigned-only/--no-assigned-only",
    default=None,
    help="Chunks go only to the container that they were dealt to.",
)
@click.option("--priority", type=int, help="Projects with a lower one wait for it (operators only).")
def project(name: str, share: float | None, assigned_only: bool | None, priority: int | None) -> None:
    """Show the project NAME, after changing what the options say; it is made if you have none of this name."""
    server = _server()
    wished = {"share": share, "assigned_only": assigned_only, "priority": priority}
    policy = {field: value for field, value in wished.items() if value is not None}
    try:
        found = server.change_project(name, **policy)
    except Refused as refusal:
        if refusal.status != NOT_FOUND:
            raise
        server.add_project(name)
        found = server.change_project(name, **policy)
    to_whom = "only to the container they were dealt to" if found["assigned_only"] else "to whoever asks"
    click.echo(f"{name}: share {found['share']:g}, priority {found['priority']}; its chunks go {to_whom}.")


def _news(task: str, progress: Progress) -> Iterator[str]:
    """What somebody who watches the task should know."""
    if progress.resting:
        yield f"Attempts fail and are tried again; see: dockercomp errors --task {task} --groups"
    if progress.paused_why:
        yield f"The task paused itself: {progress.paused_why} Go on with: dockercomp resume {task}"
    elif progress.paused:
        yield f"The task is paused; go on with: dockercomp resume {task}"


def _patiently(server: Server, task: str, polls: int) -> Progress:
    for _ in range(polls):
        try:
            return server.progress(task)
        except ServerUnavailable:
            time.sleep(POLL_S)  # it may be restarting: nothing of the task is lost meanwhile
    return server.progress(task)


for command in (submit, assign, errors, requeue, rerun, why):
    main.add_command(command)
