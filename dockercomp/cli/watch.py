"""`dockercomp watch`: a progress bar until a task is complete, and what its reactions do until they are over."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from dockercomp.api import Progress, Server, progress_of
from dockercomp.cli.connect import INTERRUPTED, POLL_S, server
from dockercomp.cli.standstill import Standstill
from dockercomp.cli.task import reactions
from dockercomp.failures import ServerUnavailable

PATIENCE = 60  #: polls without an answer before watching gives up
FIRST_PATIENCE = 10  #: the same before the first answer: the address may be wrong
LINE_S = 10.0  #: between two lines of progress, where there is no terminal


@click.command(epilog="\b\nExample:\n  dockercomp watch 5f2a9c1d7e3b4a60\n")
@click.argument("task")
def watch(task: str) -> None:
    """Show a progress bar with rate and time left until TASK is complete; exit code 1 if it failed.

    Then what runs because of its outcome is shown, until that is over. When nothing moves for half a minute it says
    why, once; Ctrl-C leaves the task as it is. Where no terminal shows it (a log) there are lines in place of the bar.
    """
    source = server()
    try:
        progress = _bar(source, task, _patiently(source, task, FIRST_PATIENCE))
        click.echo(f"{progress.outcome}: {progress.done} of {progress.total} chunks have a result.")
        ended = _patiently(source, task, PATIENCE)
        for line in _reasons(ended):
            click.echo(line)
        for line in _reactions(source, task):
            click.echo(line)
    except KeyboardInterrupt:
        click.echo(f"The task goes on: dockercomp watch {task}", err=True)
        raise SystemExit(INTERRUPTED) from None
    if ended["chunks"].get("quarantined"):
        click.echo(f"See: dockercomp errors --task {task} --groups", err=True)
    if progress.outcome != "succeeded":
        raise SystemExit(1)


def _bar(source: Server, task: str, found: dict[str, Any]) -> Progress:
    from tqdm import tqdm

    progress, told, standstill = progress_of(found), set[str](), Standstill(source)
    if progress.state == "waiting" and not found.get("start_wanted"):
        click.echo("The task has not been started; do that with: dockercomp assign", err=True)
    begin = progress.done + progress.failed
    with tqdm(total=progress.total, unit="chunk", initial=begin, disable=None) as bar:
        lines = _Lines() if bar.disable else None
        while not progress.ended:
            time.sleep(POLL_S)
            found = _patiently(source, task, PATIENCE)
            progress = progress_of(found)
            bar.total = progress.total
            bar.update(progress.done + progress.failed - bar.n)
            if progress.failed or progress.resting:
                bar.set_postfix(failed=progress.failed, failing=progress.resting)
            if lines is not None:
                lines.show(progress)
            for sentence in (*_news(task, progress), *standstill.look(found)):
                if sentence not in told:
                    told.add(sentence)
                    bar.write(sentence, file=sys.stderr)
    return progress


class _Lines:
    """Progress as lines, for a log: only what is new, and not too often."""

    def __init__(self) -> None:
        self._told, self._due = "", time.monotonic()

    def show(self, progress: Progress) -> None:
        """A line, when it says something new and its time has come."""
        failed = f", {progress.failed} failed" if progress.failed else ""
        said = f"{progress.done} of {progress.total} chunks have a result{failed}."
        if said != self._told and time.monotonic() >= self._due and not progress.ended:
            self._told, self._due = said, time.monotonic() + LINE_S
            click.echo(said, err=True)


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


def _reasons(task: dict[str, Any]) -> list[str]:
    """Why it ended as it did, where that was not for its chunks."""
    return [task[name] for name in ("ended_why", "cancelled_why") if task.get(name)]


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
