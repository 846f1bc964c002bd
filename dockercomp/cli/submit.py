"""`dockercomp submit` and `assign`: a computation begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dockercomp.api import Server
from dockercomp.cli.checking import checking_options, validation
from dockercomp.cli.connect import POLL_S, Sentence, server
from dockercomp.cli.files import put_inputs, sending
from dockercomp.cli.requiring import requires
from dockercomp.cli.wishing import wanted, wishing_options
from dockercomp.failures import DockercompError
from dockercomp.wishes import Job


@click.command(
    epilog="""\b
Examples:
  dockercomp submit pairs.csv --project sums --rows-per-chunk 500 -- python3 /opt/job/add_pairs.py
  dockercomp submit grid.csv --project digits --timeout 120 --image sha256:... -- python3 /opt/job/fit.py
  dockercomp submit greetings.csv --project hello -- /bin/echo 'hello {name}'
  dockercomp submit big.csv --project fits --requires 'arch=x86_64|arm64' --requires 'memory_mb>=4096' -- fit.py
  dockercomp submit grid.csv --project digits --quorum 2 --compare json --relative 1e-9 -- python3 /opt/job/fit.py
  dockercomp submit reads.csv --project align --input ref.fa --input 'reads.gz={sha256}' --output '*.bam' -- align
  dockercomp submit grid.csv --project digits --result json:shape.json --after 'python3 /opt/job/report.py' -- fit.py
"""
)
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("action", nargs=-1)
@click.option("--project", required=True, help="The project; it is made if you have none of this name.")
@click.option("--name", help="A name for people to read.  [default: the file's name]")
@click.option(
    "--image", help="Run only in this image: its name, which is resolved now, its digest or its id."
)
@click.option(
    "--env", "env", multiple=True, metavar="NAME=VALUE", help="Public to volunteers; may be repeated."
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds for one chunk.")
@click.option("--rows-per-chunk", default=1, show_default=True, help="More than 1: rows come on stdin only.")
@click.option(
    "--requires",
    "asked",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only containers with this label or resource; also NAME=ONE|OTHER, NAME>=NUMBER. May be repeated.",
)
@click.option(
    "--priority", default=0, show_default=True, help="Among the project's tasks: higher ones go first."
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE",
    help="A file below /in; also NAME=SHA256 of one that was put, NAME={field} of the row. Repeatable.",
)
@wishing_options
@checking_options
def submit(
    data: Path,
    action: tuple[str, ...],
    project: str,
    name: str | None,
    image: str | None,
    env: tuple[str, ...],
    timeout: float,
    rows_per_chunk: int,
    asked: tuple[str, ...],
    priority: int,
    inputs: tuple[str, ...],
    **more: Any,
) -> None:
    """Make a task that runs ACTION on every row of DATA (.csv, .jsonl or .parquet), and print its id.

    ACTION is the whole command line; {field} stands for a field of the row. With --image it may be left out: then the
    image's own command runs. The task waits until it is assigned.
    """
    main = Job(
        action=action,
        image=image,
        env=dict(_pair(text) for text in env),
        timeout_s=timeout,
        requires=requires(asked),
    )
    rule = validation(more)
    wish = wanted(
        main,
        more,
        name=name or data.name,
        rows_per_chunk=rows_per_chunk,
        priority=priority,
        validation=rule,
    )
    source = server()
    source.add_project(project)
    if inputs:
        wish = replace(wish, main=replace(wish.main, inputs=put_inputs(source, inputs)))
    made = source.make_task(project, wish)
    rows = _sent(source, data, made["id"], named=wish.id is not None)
    click.echo(_what_next(made, rows, project), err=True)
    click.echo(made["id"])


def _sent(source: Server, data: Path, task: str, *, named: bool) -> int:
    """Send the task's data, and answer how many rows that is; `named`: the task has an id of its maker's choice."""
    try:
        # Under a name of its own choice a task may be submitted again, and its data with it.
        with sending(data) as told:
            return source.upload(task, data, upload_id="data" if named else None, told=told)
    except (DockercompError, KeyboardInterrupt):
        if not named:
            with suppress(DockercompError):  # what happened is to be told, and not what came of it
                source.delete_task(task)  # without its data it is of no use to anybody
        raise


@click.command(
    epilog="""\b
Examples:
  dockercomp assign --all
  dockercomp assign --project sums --by speed
"""
)
@click.option("--project", help="Only this project's tasks.")
@click.option("--all", "everything", is_flag=True, help="All of your projects.")
@click.option(
    "--by",
    type=click.Choice(["count", "speed"]),
    default="count",
    show_default=True,
    help="Make level the number of chunks that each container has, or the time it takes for them.",
)
def assign(project: str | None, everything: bool, by: str) -> None:
    """Start waiting tasks and deal their ready chunks to the live containers, evenly."""
    if bool(project) == everything:
        raise Sentence("Say either --project NAME or --all.")
    source = server()
    deal = source.assign(project, by=by)
    while not deal["done"]:
        click.echo(f"dealt {sum(deal['dealt'].values())}, {deal['remaining']} to go", err=True)
        time.sleep(POLL_S)
        deal = source.deal(deal["id"])
    dealt = deal["dealt"]
    click.echo(f"{_chunks(sum(dealt.values()))} dealt to {_counted(len(dealt), 'container')}.")
    if deal["remaining"]:
        click.echo(f"Ready, and for whoever asks: {_chunks(deal['remaining'])}.")
    if deal["unassignable"]:
        fit = "fits" if deal["unassignable"] == 1 else "fit"
        click.echo(f"{_chunks(deal['unassignable'])} {fit} no live container now, and will wait.")


def _chunks(count: int) -> str:
    return _counted(count, "chunk")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _what_next(task: Mapping[str, Any], rows: int, project: str) -> str:
    """What the server has now, and what to do; under an id of their own choice people may have been here before."""
    if task["state"] == "waiting":
        have, them = ("row is", "it") if rows == 1 else ("rows are", "them")
        return f"{rows} {have} uploaded; start {them} with: dockercomp assign --project {project}"
    if task["state"] == "running":
        return f"This task was submitted before, and runs: dockercomp watch {task['id']}"
    return (
        f"This task was submitted before, and is complete ({task['outcome']}); "
        f"compute it anew with: dockercomp rerun {task['id']} --all"
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Sentence(f"--env takes NAME=VALUE, not {text!r}.")
    return name, value
