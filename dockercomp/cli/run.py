"""`dockercomp run`, `check` and `pin`: a task from its job file."""

from __future__ import annotations

import io
import re
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dockercomp.api import Server
from dockercomp.cli.connect import INTERRUPTED, POLL_S, Sentence, server
from dockercomp.cli.plain import plain
from dockercomp.cli.standstill import Standstill
from dockercomp.failures import ServerUnavailable
from dockercomp.images import resolve
from dockercomp.job_files import CheckedJobFile, pack, pin, root_of
from dockercomp.table import named_rows

MOST_SHOWN = 100  #: rows that are printed
PATIENCE = 60  #: polls without an answer before waiting gives up
NOT_PINNED = 1  #: exit code of `check`

job_file = click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=Path("dockercomp.yml")
)


@click.command(
    epilog="""\b
Examples:
  dockercomp run
  dockercomp run dockercomp.yml --project tests -o results.csv
  dockercomp run --no-wait
"""
)
@job_file
@click.option("--project", help="Made if you have none of this name.  [default: after the file's folder]")
@click.option("--id", "task_id", help="The task's id; the same id and file again is the same task.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait for the end, and print what came out."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table of results here."
)
def run(file: Path, project: str | None, task_id: str | None, wait: bool, output: Path | None) -> None:
    """Run the job file FILE (dockercomp.yml) with the files that git follows, as they are now.

    Tags of images are resolved here and now. Exit code 1 if the task or one of its reactions failed. When nothing moves
    for half a minute it says why, once, and goes on waiting; Ctrl-C leaves the task as it is.
    """
    source = server()
    text, checked = _read(source, file)
    if checked.tags:
        text = pin(text, checked, _announced)
    root = root_of(file)
    folder = root or file.absolute().parent
    _require_files(folder, checked)
    files = {path: source.put_file(folder / path) for path in checked.files}
    tree = _tree(source, file, root) if checked.tree else None
    project = project or _project(folder)
    source.add_project(project)
    made = source.run_job_file(project, text, task=task_id or uuid.uuid4().hex[:16], files=files, tree=tree)
    click.echo(made["id"])
    if wait:
        try:
            ended = _wait(source, made["id"])
        except KeyboardInterrupt:
            click.echo(f"The task goes on: dockercomp watch {made['id']}", err=True)
            raise SystemExit(INTERRUPTED) from None
        _report(source, ended, output)


@click.command(epilog="\b\nExample:\n  dockercomp check dockercomp.yml\n")
@job_file
def check(file: Path) -> None:
    """Say what the job file FILE asks for, or what is wrong with it; nothing is run.

    Exit code 1: there are images that are not pinned.
    """
    _, checked = _read(server(), file)
    root = root_of(file)
    _require_files(root or file.absolute().parent, checked)
    if checked.tree and root is None:
        raise Sentence(_no_repository(file))
    click.echo(f"{file} is in order: {_contents(checked)}.")
    if checked.tags:
        click.echo(f"Not pinned: {', '.join(checked.tags)}; a push needs: dockercomp pin {file}", err=True)
        raise SystemExit(NOT_PINNED)


@click.command(
    name="pin", epilog="\b\nExample:\n  dockercomp pin dockercomp.yml && git commit -am 'Pin images'\n"
)
@job_file
def pin_images(file: Path) -> None:
    """Replace the tags of images in the job file FILE by what they stand for now; everything else stays as it is."""
    text, checked = _read(server(), file)
    if not checked.tags:
        click.echo(f"Every image in {file} is pinned.")
        return
    pinned = pin(text, checked, _announced)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", newline="", delete=False) as out:
        out.write(pinned)
    Path(out.name).chmod(file.stat().st_mode & 0o777)
    Path(out.name).replace(file)
    click.echo(f"{file}: {len(checked.tags)} images are pinned.")


def _contents(checked: CheckedJobFile) -> str:
    rows = "the rows of a file" if checked.rows is None else f"{checked.rows} row{'s' * (checked.rows != 1)}"
    matrix = f", {len(checked.task['variants'])} matrix entries" if "variants" in checked.task else ""
    jobs = ["main", *(name for name in ("success", "failure", "after") if name in checked.task)]
    return f"{rows}{matrix}; jobs: {', '.join(jobs)}"


def _read(source: Server, file: Path) -> tuple[str, CheckedJobFile]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Sentence(f"{file} is not UTF-8.") from None
    return text, source.check_job_file(text)


def _announced(reference: str) -> str:
    found = resolve(reference)
    click.echo(f"{reference} is {found.image}", err=True)
    if found.hint:
        click.echo(f"Note: {found.hint}", err=True)
    return found.image


def _require_files(folder: Path, checked: CheckedJobFile) -> None:
    for path in checked.files:
        if not (folder / path).is_file():
            raise Sentence(f"There is no file {folder / path}, which the job file names.")


def _tree(source: Server, file: Path, root: Path | None) -> str:
    if root is None:
        raise Sentence(_no_repository(file))
    with tempfile.NamedTemporaryFile(suffix=".tar") as out:
        count = pack(root, out)
        out.flush()
        click.echo(f"{count} files of {root} go along, {Path(out.name).stat().st_size} bytes.", err=True)
        return source.put_file(Path(out.name))


def _no_repository(file: Path) -> str:
    return (
        f"{file} is in no git repository, and what goes along are the files that git follows: "
        "write 'tree: false' into it, or run git init and git add."
    )


def _project(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:63] or "runs"


def _wait(source: Server, task: str) -> dict[str, Any]:
    """The task's record once it and its reactions are over."""
    silent, told, standstill = 0, "", Standstill(source)
    while True:
        try:
            found, silent = source.task(task), 0
        except ServerUnavailable:
            silent += 1
            if silent > PATIENCE:
                raise
            time.sleep(POLL_S)  # it may be restarting: nothing of the task is lost meanwhile
            continue
        if found["state"] == "complete" and not found["reacting"]:
            return found
        said = _progress(found)
        if said != told:
            click.echo(said, err=True)
            told = said
        for line in standstill.look(found):
            click.echo(line, err=True)
        time.sleep(POLL_S)


def _progress(task: Mapping[str, Any]) -> str:
    chunks = task["chunks"]
    running = [one["reaction"] for one in task.get("reaction_runs", ()) if one["state"] == "running"]
    about = f"; {running[-1]} runs" if running else ""
    paused = f" Paused: {task['paused_why'] or 'by you.'}" if task["paused"] else ""
    return f"{chunks.get('done', 0)} of {chunks['total']} chunks have a result{about}.{paused}"


def _report(source: Server, task: Mapping[str, Any], output: Path | None) -> None:
    if output is not None:
        source.download_results(output, task=task["id"])
    if task["rows"] <= MOST_SHOWN:
        _print_rows(source, task["id"])
    click.echo(
        f"{task['outcome']}: {task['chunks'].get('done', 0)} of {task['chunks']['total']} chunks have a result."
    )
    bad = task["outcome"] != "succeeded"
    for one in task.get("reaction_runs", ()):
        if one["current"]:
            click.echo(
                f"{one['reaction']}: {one['outcome']}: {(one['answer'] or one['error'] or '').strip()}"
            )
            bad = bad or one["outcome"] != "succeeded"
    if bad:
        click.echo(f"See: dockercomp errors --task {task['id']}", err=True)
        raise SystemExit(1)


def _print_rows(source: Server, task: str) -> None:
    table = io.BytesIO()
    source.copy_results(table, task=task)
    for row in named_rows(io.StringIO(table.getvalue().decode(), newline="")):
        variant = row.get("variant") or row.get("input.variant")  # of a row without a result only the second
        where = f" in {variant}" if variant else ""
        answer = plain((row["answer"] or "").strip()).replace("\n", " | ")[:200]
        click.echo(f"row {row['row']}{where}: {row['verdict'] or row['state']} {answer}".rstrip())
