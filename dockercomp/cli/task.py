"""`dockercomp task`: one task looked into, listed among others, and steered."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click

from dockercomp.cli.connect import server

REACTIONS = ("success", "failure", "after")
SHOWN = 200  #: letters of an answer in a line
TAIL = 5  #: lines of stderr


@click.group(
    epilog="""\b
Examples:
  dockercomp task list --state running
  dockercomp task show 5f2a9c1d7e3b4a60
  dockercomp task attempts 5f2a9c1d7e3b4a60 --most 5
"""
)
def task() -> None:
    """Look into tasks, and steer them."""


@task.command("list", epilog="\b\nExample:\n  dockercomp task list --project sums --state running\n")
@click.option("--project", help="Only this project's.")
@click.option(
    "--state", type=click.Choice(["waiting", "running", "complete"]), help="Only those in this state."
)
def list_tasks(project: str | None, state: str | None) -> None:
    """List your tasks, oldest first: id, project, state and outcome, rows, name."""
    for one in server().each_task(project, state=state):
        click.echo(
            "  ".join(
                (f"{one['id']:<16}", f"{one['project']:<20}", f"{_state(one):<24}", rows_of(one), one["name"])
            )
        )


@task.command("show", epilog="\b\nExample:\n  dockercomp task show 5f2a9c1d7e3b4a60\n")
@click.argument("task_id", metavar="TASK")
def show(task_id: str) -> None:
    """Show TASK: its jobs, how far it is, and what became of its reactions and of the messages about it."""
    for line in _described(server().task(task_id)):
        click.echo(line)


@task.command(
    "attempts",
    epilog="""\b
Examples:
  dockercomp task attempts 5f2a9c1d7e3b4a60
  dockercomp task attempts --chunk 5f2a9c1d7e3b4a60.17
""",
)
@click.argument("task_id", metavar="[TASK]", required=False)
@click.option("--chunk", help="Those of one chunk instead, of all its runs.")
@click.option("--most", default=20, show_default=True, help="Show so many at most.")
def attempts(task_id: str | None, chunk: str | None, most: int) -> None:
    """Show every attempt at TASK, good or failed, newest first: when, where, how it ended, what it said."""
    if (task_id is None) == (chunk is None):
        raise click.UsageError("Say either a TASK or --chunk CHUNK.")
    found = server().attempts(task_id, chunk=chunk)
    nothing = True
    for one in itertools.islice(found, most):
        nothing = False
        for line in _attempt(one):
            click.echo(line)
    if nothing:
        click.echo("There was no attempt yet.")
    elif next(found, None) is not None:
        click.echo(f"There are more; see them with --most {most * 10}.")


@task.command("delete", epilog="\b\nExample:\n  dockercomp task delete 5f2a9c1d7e3b4a60\n")
@click.argument("task_id", metavar="TASK")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(task_id: str, yes: bool) -> None:
    """Forget TASK with its data, results and errors, for good."""
    if not yes:
        click.confirm(f"Delete {task_id} with all its results?", abort=True)
    server().delete_task(task_id)
    click.echo(f"{task_id} is deleted.")


def _state(one: Mapping[str, Any]) -> str:
    if one["outcome"]:
        return f"{one['state']} ({one['outcome']})"
    return f"{one['state']} (paused)" if one.get("paused") else str(one["state"])


def rows_of(one: Mapping[str, Any]) -> str:
    """How many rows a task has, in words."""
    return _counted(one["rows"], "row")


def _described(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"{one['id']}  {one['name']}, in project {one['project']}"
    yield f"state      {_state(one)}"
    for name in ("paused_why", "ended_why", "cancelled_why"):
        if one.get(name):
            yield f"           {one[name]}"
    yield f"chunks     {_counts(one['chunks'])}"
    yield f"data       {rows_of(one)}{'' if one['sealed'] else ', not complete'}"
    yield from _moments(one)
    yield from _job("main", one["job"])
    for name, job in one.get("reactions", {}).items():
        yield from _job(name, job)
    if one.get("after_tasks"):
        yield f"follows    {', '.join(one['after_tasks'])}{', which it waits for' if one.get('start_wanted') else ''}"
    if one.get("limits"):
        yield f"limits     {_pairs(_flat(one['limits']))}; used {_pairs(one.get('used') or {})}"
    if one.get("notify"):
        yield f"notify     {', '.join(_to(who) for who in one['notify'])}"
    yield from reactions(one)
    yield from _notices(one)


def _notices(one: Mapping[str, Any]) -> Iterator[str]:
    """What became of each message about the task."""
    for notice in one.get("notices", ()):
        tries = _counted(notice["tries"], "try", "tries")
        yield f"told       {_to(notice)}: {notice['state'].replace('_', ' ')}, {tries}"
        if notice["last"] and notice["state"] != "delivered":
            yield f"           {notice['last']}"


def _to(who: Mapping[str, Any]) -> str:
    return str(who.get("email") or who.get("webhook"))


def _moments(one: Mapping[str, Any]) -> Iterator[str]:
    for name in ("created", "started", "ended"):
        if one[name]:
            yield f"{name:<10} {one[name]}"


def _counts(chunks: Mapping[str, int]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in chunks.items() if state != "total" and count)
    return f"{chunks['total']}{f': {states}' if states else ''}"


def _job(name: str, job: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name:<10} {shlex.join(job['action']) or '(the image’s own command)'}"
    if job["image"]:
        yield f"           in {job['image']}"
    for variant in job.get("variants", ()):
        yield f"           {variant['name']}: in {variant['image']}"
    said = {
        "timeout_s": job["timeout_s"],
        **{k: job[k] for k in ("cpus", "memory_mb", "disk_mb") if k in job},
    }
    yield f"           {_pairs(said)}"
    if job.get("outputs"):
        yield f"           keeps {', '.join(job['outputs'])}"
    if job.get("result"):
        shaped = " of a declared shape" if "schema" in job["result"] else ""
        yield f"           answers: {job['result']['type']}{shaped}"


def _flat(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The limits, those within another beside it: `stop_when` is a number of answers, and what has to match."""
    wanted = limits.get("stop_when")
    if wanted is None:
        return dict(limits)
    match = wanted.get("match")
    matching = {} if match is None else {"match": json.dumps(match)}
    return {**limits, "stop_when": _counted(wanted["answers"], "answer"), **matching}


def _pairs(said: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in said.items()
    )


def reactions(one: Mapping[str, Any]) -> Iterator[str]:
    """What became of a task's reactions, one line each; two where one failed."""
    for run in one.get("reaction_runs", ()):
        earlier = "" if run["current"] else ", to an earlier outcome"
        tries = _counted(run["attempts"], "attempt")
        yield f"{run['reaction']:<10} {_state(run)}{earlier}, {tries}"
        if run["answer"]:
            yield f"           answered {_line(run['answer'])}"
        elif run["error"]:
            yield f"           failed: {_line(run['error'])}"


def _counted(count: int, what: str, many: str | None = None) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {many or what + 's'}"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _attempt(one: Mapping[str, Any]) -> Iterator[str]:
    exit_ = "" if one["exit_code"] is None else f", exit {one['exit_code']}"
    killed = "" if one["signal"] is None else f", signal {one['signal']}"
    where = f"host {one['host']}" if one["host"] else "no host's own"
    yield f"{one['stored']}  {one['chunk']}  {where}  {one['outcome']}{exit_}{killed}  ({one['verdict']})"
    yield f"    ran {one['started']} to {one['ended']}, {one['cpu_s'] or 0:g} s of processor time"
    if one["stdout"]:
        yield f"    answered {_line(one['stdout'])}"
    for file in one.get("files", ()):
        yield f"    file {file['name']}, {file['bytes']} bytes"
    yield from (f"    {line}" for line in (one["stderr_tail"] or "").splitlines()[-TAIL:])
