"""`dockercomp receiver`: the ways by which work comes into a project."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dockercomp.cli.connect import Sentence, server
from dockercomp.cli.hook import hook

_project = click.option("--project", required=True, help="Whose: one of your projects.")


@click.group(
    epilog="""\b
Examples:
  dockercomp receiver add http --project sums --template job.json
  dockercomp receiver list --project sums
  dockercomp receiver events --project sums
"""
)
def receiver() -> None:
    """Take work in from outside: over HTTP, as files, by mail, from git, by the clock."""


@receiver.command(
    epilog="""\b
Examples:
  dockercomp receiver add http --project sums --template job.json --secret-file in.secret
  dockercomp receiver add upload --project files --template job.json --set 'chunking={"rows": 500}'
  dockercomp receiver add schedule --project nights --template job.json \\
      --set 'cron=30 2 * * *' --set timezone=Europe/Berlin
  dockercomp receiver add mail --project letters --template job.json --set 'senders=["@example.org"]'
  dockercomp receiver add git --project tests --set repository=https://github.com/you/project

\b
A template is the body of a new task as the HTTP reference describes it, such as
  {"action": ["/bin/echo", "hello {name}"], "timeout_s": 30}
"""
)
@click.argument("kind")
@_project
@click.option(
    "--template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file: the task that data is put into.",
)
@click.option(
    "--set", "said", multiple=True, metavar="NAME=VALUE", help="A setting of that kind; VALUE may be JSON."
)
@click.option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the secret into this new file, readable only by you, instead of showing it.",
)
def add(
    kind: str, project: str, template: Path | None, said: tuple[str, ...], secret_file: Path | None
) -> None:
    """Open a way of this KIND into a project: http, upload, mail, git or schedule. Its secret is shown this once."""
    if secret_file is not None and secret_file.exists():
        raise Sentence(f"{secret_file} is there already: name another file, or remove it first.")
    settings = dict(_setting(text) for text in said)
    if template is not None:
        settings["template"] = _json_file(template)
    made = server().add_receiver(project, kind, settings)
    address, secret = made["address"], made["secret"]
    if secret_file is not None:
        _write(secret_file, secret)
        address = address.replace(secret, "SECRET")
        click.echo(f"The secret is in {secret_file}.", err=True)
    click.echo(f"receiver  {made['id']}")
    if address:
        click.echo(f"address   {address}")
        if secret_file is None:
            click.echo(f"secret    {secret}")


@receiver.command("list", epilog="\b\nExample:\n  dockercomp receiver list --project sums\n")
@_project
def list_receivers(project: str) -> None:
    """Show a project's receivers and their addresses."""
    for one in server().receivers(project):
        click.echo(f"{one['id']}  {one['kind']:<8}  {one['created']}  {_where(one)}")


@receiver.command(epilog="\b\nExample:\n  dockercomp receiver remove r4c1f0a9b2d3e5f60 --project sums\n")
@click.argument("receiver_id", metavar="RECEIVER")
@_project
def remove(receiver_id: str, project: str) -> None:
    """Close the way in; what waits there is refused, and tasks that it made stay."""
    server().remove_receiver(project, receiver_id)
    click.echo(f"{receiver_id} takes nothing more in.")


@receiver.command(
    epilog="""\b
Examples:
  dockercomp receiver events --project sums
  dockercomp receiver events --project sums --receiver r4c1f0a9b2d3e5f60 --most 100
"""
)
@_project
@click.option("--receiver", "receiver_id", metavar="RECEIVER", help="Only what came to this one.")
@click.option("--most", default=20, show_default=True, help="Show so many at most.")
def events(project: str, receiver_id: str | None, most: int) -> None:
    """Show what came, newest first, and what became of it: a task, or the reason why not."""
    found = list(itertools.islice(server().events(project, receiver=receiver_id), most))
    for one in found:
        task = one["task"] or "-"
        click.echo(
            f"{one['id']}  {one['received']}  {one['kind']:<8}  {one['state']:<8}  {task}  {_what(one)}"
        )
        if one["why"]:
            click.echo(f"    {one['why']}")
    if not found:
        click.echo("Nothing has come.")


@receiver.command(
    epilog="\b\nExample:\n  dockercomp receiver again 9b1d0c7e5a3f48e2b6a1c0d9e8f70615 --project sums\n"
)
@click.argument("event")
@_project
def again(event: str, project: str) -> None:
    """Have an EVENT that was refused handled anew, once its reason is gone."""
    server().handle_again(project, event)
    click.echo(f"{event} is handled again; see: dockercomp receiver events --project {project}")


receiver.add_command(hook)


def _where(one: Mapping[str, Any]) -> str:
    """Where it is sent to; of a schedule, when it comes."""
    if one["address"]:
        return str(one["address"])
    return f"{one['settings'].get('cron', '')} {one['settings'].get('timezone', 'UTC')}"


def _what(event: Mapping[str, Any]) -> str:
    """What came, in words; else what names it."""
    about = event["about"]
    if "note" in about:
        return str(about["note"])
    if "branch" in about:
        return f"{about['branch']} at {about['commit']}"
    if about.get("sender"):
        return f"{about['name'] or 'a job file'} from {about['sender']}  {event['key']}"
    return str(about.get("name") or event["key"])


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Sentence(f"--set takes NAME=VALUE, not {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Sentence(f"{path} is not a JSON file: {error}.") from error


def _write(path: Path, secret: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secret + "\n")
