"""`dockercomp`: the scientist's command."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import click

from dockercomp.cli.connect import INTERRUPTED, Sentence
from dockercomp.cli.connect import server as _server
from dockercomp.cli.errors import errors, requeue, rerun
from dockercomp.cli.files import blobs, list_files, put
from dockercomp.cli.plain import plain
from dockercomp.cli.receiver import receiver
from dockercomp.cli.run import check, pin_images, run
from dockercomp.cli.submit import assign, submit
from dockercomp.cli.summary import summary
from dockercomp.cli.task import rows_of
from dockercomp.cli.task import task as task_group
from dockercomp.cli.watch import watch
from dockercomp.cli.why import why
from dockercomp.failures import DockercompError, Refused

NOT_FOUND = 404
NEWEST = 50  #: tasks that `status` shows besides those that run


class ScientistGroup(click.Group):
    """A group whose commands end with a sentence when the server or the settings say no."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our own errors become sentences, and those of this machine's files and disk."""
        try:
            return super().invoke(ctx)
        except DockercompError as error:
            raise Sentence(plain(str(error))) from error
        except OSError as error:
            # With EPIPE whoever read our output has left: click knows.
            if error.strerror is None or error.errno == errno.EPIPE:
                raise
            about = f"{error.filename}: " if error.filename else ""
            raise Sentence(f"{about}{error.strerror}.") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise SystemExit(INTERRUPTED) from None


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
    if not output.parent.is_dir():
        raise Sentence(f"There is no folder {output.parent} to write {output.name} into.")
    copied = _server().download_results(output, task=task, project=project)
    click.echo(f"{output}: {copied} bytes written.", err=True)


@main.command(epilog="\b\nExample:\n  dockercomp status\n")
def status() -> None:
    """Show your tasks that run and your newest others, and the containers that are there."""
    server = _server()
    tasks = server.tasks()
    older = [one for one in tasks[:-NEWEST] if one["state"] != "running"]
    left_out = {one["id"] for one in older}
    if older:
        click.echo(f"{len(older)} older tasks are left out; all of them: dockercomp task list", err=True)
    for task in tasks:
        if task["id"] in left_out:
            continue
        outcome = f" ({task['outcome']})" if task["outcome"] else ""
        if task["state"] == "running":
            progress = server.progress(task["id"])
            outcome = f" {progress.done}/{progress.total}"
        click.echo(
            f"{task['id']:<16}  {task['project']:<20} {task['state']}{outcome}  {rows_of(task)}  {task['name']}"
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


for command in (
    submit,
    assign,
    watch,
    put,
    list_files,
    blobs,
    errors,
    requeue,
    rerun,
    why,
    summary,
    task_group,
    run,
    check,
    pin_images,
    receiver,
):
    main.add_command(command)

# The same under both names.
for command in (cancel, pause, resume):
    task_group.add_command(command)
