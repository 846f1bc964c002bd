"""`dockercomp watch`: a progress bar until a task is complete, and what its reactions do until they are over."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from dockercomp.api import Progress, Server, progress_of
from dockercomp.cli.connect import POLL_S, server
from dockercomp.cli.task import reactions
from dockercomp.failures import ServerUnavailable

PATIENCE = 60  #: polls without an answer before watching gives up
FIRST_PATIENCE = 10  #: the same before the first answer: the address may be wrong


@click.command(epilog="\b\nExample:\n  dockercomp watch 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def watch(task: str) -> None:
    """Show a progress bar with rate and time left until TASK is complete; exit code 1 if it failed.

    Then what runs because of its outcome is shown, until that is over.
    """
    source = server()
    progress = _bar(source, task, progress_of(_patiently(source, task, FIRST_PATIENCE)))
    click.echo(f"{progress.outcome}: {progress.done} of {progress.total} chunks have a result.")
    for line in _reactions(source, task):
        click.echo(line)
    if progress.outcome != "succeeded":
        raise SystemExit(1)


def _bar(source: Server, task: str, progress: Progress) -> Progress:
    from tqdm import tqdm

    if progress.state == "waiting":
        click.echo("The task has not been started; do that with: dockercomp assign", err=True)
    told = set[str]()
    with tqdm(total=progress.total, unit="chunk", initial=progress.done + progress.failed) as bar:
        while not progress.ended:
            time.sleep(POLL_S)
            progress = progress_of(_patiently(source, task, PATIENCE))
            bar.total = progress.total
            bar.update(progress.done + progress.failed - bar.n)
            if progress.failed or progress.resting:
                bar.set_postfix(failed=progress.failed, failing=progress.resting)
            for sentence in _news(task, progress):
                if sentence not in told:
                    told.add(sentence)
                    bar.write(sentence, file=sys.stderr)
    return progress


def _reactions(source: Server, task: str) -> Iterator[str]:
    """Each line once, when there is something new to say of a reaction."""
    told = set[str]()
    while True:
        found = _patiently(source, task, PATIENCE)
        for line in reactions(found):
            if line not in told:
                told.add(line)
                yield line
        # A rerun meanwhile: then it is no more the outcome that was watched.
        if not found.get("reacting") or found["state"] != "complete":
            return
        time.sleep(POLL_S)


def _news(task: str, progress: Progress) -> Iterator[str]:
    """What somebody who watches the task should know."""
    if progress.resting:
        yield f"Attempts fail and are tried again; see: dockercomp errors --task {task} --groups"
    if progress.paused_why:
        yield f"The task paused itself: {progress.paused_why} Go on with: dockercomp resume {task}"
    elif progress.paused:
        yield f"The task is paused; go on with: dockercomp resume {task}"


def _patiently(source: Server, task: str, polls: int) -> dict[str, Any]:
    for _ in range(polls):
        try:
            return source.task(task)
        except ServerUnavailable:
            time.sleep(POLL_S)  # it may be restarting: nothing of the task is lost meanwhile
    return source.task(task)
