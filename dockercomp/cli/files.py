"""`dockercomp put`, `files` and `blobs`: files go to the source server, and those of answers come back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from dockercomp.api import Server
from dockercomp.blobs import Told
from dockercomp.cli.connect import Sentence, server


@click.command(
    epilog="""\b
Examples:
  dockercomp put reference.fa
  for f in parts/*.bin; do printf '%s,%s\\n' "$(basename "$f")" "$(dockercomp put "$f")"; done
"""
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def put(files: tuple[Path, ...], quiet: bool) -> None:
    """Bring FILES to the source server and print the SHA-256 of each, by which jobs and rows name it.

    A file that broke off goes on where it was; one that is there already is not sent again. What no task names for a
    day (or what the operator says) is removed there.
    """
    source = server()
    for path in files:
        with sending(path, quiet=quiet) as told:
            sha256 = source.put_file(path, told=told)
        click.echo(sha256)


@click.command(
    "files",
    epilog="""\b
Examples:
  dockercomp files 5f2a9c1d7e3b4a60
  dockercomp files 5f2a9c1d7e3b4a60 -o results/
""",
)
@click.argument("task")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Fetch them into here."
)
def list_files(task: str, output: Path | None) -> None:
    """List the files that came with the accepted answers of TASK, or fetch them.

    They are written to OUTPUT/N/NAME, N being the number of the chunk. The same command again goes on where it broke
    off, and fetches what has come since.
    """
    source = server()
    if output is not None:
        count = source.fetch_files(task, output, told=lambda path: click.echo(str(path)))
        click.echo(f"{count} files are in {output}.", err=True)
        return
    for one in source.result_files(task):
        click.echo(f"{one['n']}  {one['sha256']}  {one['bytes']:>12}  {one['name']}")


@click.command(epilog="\b\nExample:\n  dockercomp blobs\n")
def blobs() -> None:
    """List your files on the source server, by SHA-256, and how much room they take."""
    found = server().blobs()
    for one in found["blobs"]:
        click.echo(f"{one['sha256']}  {one['bytes']:>12}  {one['since']}")
    used, quota = found["usage"]["bytes"] / 1e6, found["usage"]["quota"] / 1e6
    click.echo(f"{used:,.1f} MB of {quota:,.1f} MB are used.", err=True)


def put_inputs(source: Server, texts: Iterable[str]) -> dict[str, str]:
    """`--input NAME=WHAT`: name below /in -> SHA-256, or a text with {fields}; files are brought to the server."""
    inputs: dict[str, str] = {}
    for text in texts:
        name, equals, what = text.partition("=")
        if not equals:
            name, what = Path(text).name, text
        if not name or name in inputs:
            raise Sentence(f"--input takes NAME=FILE, each name once, not {text!r}.")
        if re.fullmatch(r"[0-9a-f]{64}", what) or "{" in what:
            inputs[name] = what
        elif Path(what).is_file():
            with sending(Path(what)) as told:
                inputs[name] = source.put_file(Path(what), told=told)
        else:
            raise Sentence(
                f"--input {name}: there is no file {what}, and it is neither a SHA-256 nor a {{field}}."
            )
    return inputs


@contextmanager
def sending(path: Path, *, quiet: bool = False) -> Iterator[Told]:
    """A bar for a file that is sent, where a terminal shows it; what it yields is told how far that is."""
    from tqdm import tqdm

    size = path.stat().st_size
    with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=quiet or None, delay=0.5) as bar:
        yield partial(_show, bar)


def _show(bar: Any, done: int, whole: int) -> None:
    bar.update(done - bar.n)
