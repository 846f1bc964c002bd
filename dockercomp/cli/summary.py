"""`dockercomp summary`: what became of a task, or of a pushed commit, on one screen."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import click

from dockercomp.api import Server
from dockercomp.cli.connect import Sentence, server
from dockercomp.cli.plain import plain
from dockercomp.cli.task import reactions
from dockercomp.table import named_rows

MOST_ROWS = 100  #: of a task whose rows are shown
MOST_EXPLAINED = 10  #: rows that are not good of which it is said why
LOOKED_AT = 10  #: attempts at a chunk, the newest
SHOWN = 100  #: letters of an answer
NAME = 40  #: letters of a row's name
GIT_S = 10.0
FAILED, NOT_OVER = 1, 3  #: exit codes
WORDS = {
    "done": "ok",
    "quarantined": "failed",
    "leased": "runs",
    "delayed": "fails",  #: and is tried again
    "ready": "waits",
    "validating": "checked",
    "cancelled": "cancelled",
}


@click.command(
    epilog="""\b
Examples:
  dockercomp summary 5f2a9c1d7e3b4a60
  git push && dockercomp watch $(git rev-parse HEAD); dockercomp summary --tail 40
"""
)
@click.argument("task", required=False)
@click.option(
    "--tail", default=10, show_default=True, help="Last lines shown of what a failing row has printed."
)
def summary(task: str | None, tail: int) -> None:
    """Show what became of TASK, row by row, with the end of what failing rows printed.

    Without TASK it is the commit that is checked out here. Exit code 0: it succeeded, with its reactions; 1: it did
    not; 3: it is not over.
    """
    source = server()
    found = source.task(task or _commit())
    for line in _lines(source, found, tail):
        click.echo(line)
    raise SystemExit(_verdict(found))


def _commit() -> str:
    """The commit of this folder's work tree: the id of the task that a push of it makes."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # whichever git the user has
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Sentence("Say which TASK: git does not say which commit is checked out here.") from error
    if asked.returncode != 0:
        raise Sentence("Say which TASK: no commit is checked out in this folder.")
    return asked.stdout.strip()


def _verdict(task: Mapping[str, Any]) -> int:
    if task["state"] != "complete" or task.get("reacting"):
        return NOT_OVER
    runs = [one for one in task.get("reaction_runs", ()) if one["current"]]
    good = all(one["outcome"] == "succeeded" for one in (task, *runs))
    return 0 if good else FAILED


def _lines(source: Server, task: Mapping[str, Any], tail: int) -> Iterator[str]:
    chunks = task["chunks"]
    yield f"{task['id']}  {task['name']}, in project {task['project']}"
    yield f"{_state(task)}: {chunks.get('done', 0)} of {chunks['total']} chunks have a result"
    yield from (f"  {task[name]}" for name in ("paused_why", "ended_why", "cancelled_why") if task.get(name))
    if task["rows"] <= MOST_ROWS:
        yield from _rows(source, task, tail)
    yield from reactions(task)
    if chunks.get("quarantined") or chunks.get("delayed"):
        yield f"More: dockercomp errors --task {task['id']}"


def _state(task: Mapping[str, Any]) -> str:
    if task["state"] != "complete":
        return "paused" if task["paused"] else str(task["state"])
    if not task["started"]:
        return str(task["outcome"])
    began, ended = (
        datetime.fromisoformat(task[name].replace("Z", "+00:00")) for name in ("started", "ended")
    )
    return f"{task['outcome']} after {_duration(round((ended - began).total_seconds()))}"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    said = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in said if count) or "0 s"


# --- rows


def _table(source: Server, task: str) -> list[dict[str, str]]:
    table = io.BytesIO()
    source.copy_results(table, task=task)
    text = io.StringIO(table.getvalue().decode("utf-8", "replace"), newline="")
    return [{key: plain(value) for key, value in row.items()} for row in named_rows(text)]


def _rows(source: Server, task: Mapping[str, Any], tail: int) -> Iterator[str]:
    table = _table(source, task["id"])
    names = [_name(row, task["fields"]) for row in table]
    width, explained = max(map(len, names), default=0), set[str]()
    for row, name in zip(table, names, strict=True):
        yield f"  {name:<{width}}  {_word(row):<7}  {_one_line(row['answer'])}".rstrip()
        chunk = f"{row['task']}.{row['n']}"
        if row["state"] != "done" and chunk not in explained and len(explained) < MOST_EXPLAINED:
            explained.add(chunk)
            yield from _explained(source, chunk, tail)


def _name(row: Mapping[str, str], fields: Sequence[str]) -> str:
    """The variant and the fields of a row, as far as there is room."""
    # A field that is called like a column of the table has another name there.
    values = {name: row.get(f"input.{name}", row.get(name, "")) for name in fields}
    variant = values.pop("variant", "") or row.get("variant") or ""
    told = ", ".join(f"{name}={_one_line(value)}" for name, value in values.items())
    text = ", ".join(one for one in (variant, told) if one) or f"row {row['row']}"
    return text if len(text) <= NAME else f"{text[: NAME - 3]}..."


def _word(row: Mapping[str, str]) -> str:
    return row["verdict"] if row["verdict"] == "suspect" else WORDS.get(row["state"], row["state"])


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _explained(source: Server, chunk: str, tail: int) -> Iterator[str]:
    """How the last bad attempt ended and what it printed; of a chunk without one, why it does not run."""
    bad = [one for one in islice(source.attempts(chunk=chunk), LOOKED_AT) if one["outcome"] != "ok"]
    # The program's own failure rather than a machine's that could not run it.
    last = next((one for one in bad if one["outcome"] != "engine"), bad[0] if bad else None)
    if last is None:
        yield f"      {source.why(chunk)['summary']}"
        return
    yield f"      {last['signature'] or last['outcome']}"
    printed = (last["stdout"] or "").splitlines() + (last["stderr_tail"] or "").splitlines()
    if not (len(printed) == 1 and printed[0].strip() in (last["signature"] or "")):
        yield from (f"      | {line}" for line in printed[-tail:] if tail > 0)
