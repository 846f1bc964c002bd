"""`dockercomp errors`, `requeue` and `rerun`: what failed, another try for it, and computing anew."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from dockercomp.api import Server
from dockercomp.cli.connect import POLL_S, Sentence, server

TAIL = 5  #: lines of stderr shown


@click.command(
    epilog="""\b
Examples:
  dockercomp errors
  dockercomp errors --task 5f2a9c1d7e3b4a60
  dockercomp errors --task 5f2a9c1d7e3b4a60 --groups
"""
)
@click.option("--task", help="Only this task's.")
@click.option("--groups", is_flag=True, help="With --task: alike failures together, the most frequent first.")
@click.option("--most", default=20, show_default=True, help="Show so many at most.")
def errors(task: str | None, groups: bool, most: int) -> None:
    """Show failed attempts: chunk, host, how it ended, and the end of what it said."""
    if groups and task is None:
        raise Sentence("Say whose groups: --task TASK.")
    shown = _groups(server(), task, most) if groups and task else _singles(server(), task, most)
    nothing = True
    for line in shown:
        nothing = False
        click.echo(line)
    if nothing:
        click.echo("No attempt has failed.")


def _singles(source: Server, task: str | None, most: int) -> Iterator[str]:
    for number, error in enumerate(source.errors(task)):
        if number == most:
            yield f"There are more; see them with --most {most * 10}."
            return
        host = f"host {error['host']}" if error["host"] else "several hosts"
        yield f"{error['stored']}  {error['chunk']}  {host}  {error['signature']}"
        yield from _tail(error)


def _groups(source: Server, task: str, most: int) -> Iterator[str]:
    found = source.error_groups(task)
    for group in found[:most]:
        yield group["signature"]
        yield (
            f"    {_counted(group['count'], 'failure')} of {_counted(group['chunks'], 'chunk')} "
            f"on {_counted(group['hosts'], 'host')}, {group['quarantined']} set aside; "
            f"first {group['first']}, last {group['last']}"
        )
        if group["sample"]:
            yield f"    {group['sample']['chunk']} said:"
            yield from _tail(group["sample"])
    if len(found) > most:
        yield f"There are {len(found) - most} more groups; see them with --most {len(found)}."


def _tail(error: Mapping[str, Any]) -> Iterator[str]:
    # Tests often say what is wrong on stdout only.
    said = error["stderr_tail"].strip() or error.get("stdout_tail") or ""
    return (f"    {line}" for line in said.splitlines()[-TAIL:])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@click.command(
    epilog="""\b
Examples:
  dockercomp requeue 5f2a9c1d7e3b4a60
  dockercomp requeue 5f2a9c1d7e3b4a60 --signature 'oom, signal 9: '
  dockercomp requeue --chunk 5f2a9c1d7e3b4a60.17 --chunk 5f2a9c1d7e3b4a60.23
"""
)
@click.argument("task", required=False)
@click.option("--signature", help="Only what was set aside for this one; see: dockercomp errors --groups")
@click.option("--chunk", "chunks", multiple=True, metavar="CHUNK", help="Only this chunk; may be repeated.")
def requeue(task: str | None, signature: str | None, chunks: tuple[str, ...]) -> None:
    """Give chunks of TASK that were set aside another try; what they were answered before still counts."""
    if (task is None) == (not chunks):
        raise Sentence("Say either a TASK or --chunk CHUNK.")
    if chunks and signature is not None:
        raise Sentence("--signature goes with a TASK, not with --chunk.")
    source = server()
    sent = source.requeue(task, signature=signature, chunks=chunks)
    _wait_for_all(source, task or chunks[0].rpartition(".")[0], sent)


@click.command(
    epilog="""\b
Examples:
  dockercomp rerun 5f2a9c1d7e3b4a60 --all
  dockercomp rerun 5f2a9c1d7e3b4a60 --suspect
  dockercomp rerun 5f2a9c1d7e3b4a60 --chunk 17 --chunk 23
"""
)
@click.argument("task")
@click.option("--all", is_flag=True, help="Every chunk.")
@click.option("--failed", is_flag=True, help="Those that were set aside.")
@click.option("--suspect", is_flag=True, help="Those answered by a host no longer trusted.")
@click.option(
    "--chunk",
    "chunks",
    multiple=True,
    metavar="CHUNK",
    help="Only this chunk, or its number; may be repeated.",
)
def rerun(task: str, chunks: tuple[str, ...], **flags: bool) -> None:
    """Compute chunks of TASK anew. Their earlier answers are kept by the server, but count no more."""
    chosen = [name for name, said in flags.items() if said]
    if len(chosen) + bool(chunks) != 1:
        raise Sentence("Say one of --all, --failed and --suspect, or --chunk CHUNK.")
    source = server()
    chunks = tuple(one if "." in one else f"{task}.{one}" for one in chunks)
    _wait_for_all(source, task, source.rerun(task, which=chosen[0] if chosen else None, chunks=chunks))


def _wait_for_all(source: Server, task: str, sent: Mapping[str, Any]) -> None:
    count, done = sent["sent"], sent["done"]
    found = source.task(task)
    while not done:
        click.echo(f"{count} chunks sent out again so far", err=True)
        time.sleep(POLL_S)
        found = source.task(task)
        done = found["round"] is None
        count = count if done else found["round"]["sent"]
    click.echo(f"{_counted(count, 'chunk')} sent out again." if sent["done"] else "All are sent out again.")
    if count and found["paused"]:
        click.echo(f"The task is paused; go on with: dockercomp resume {task}", err=True)
