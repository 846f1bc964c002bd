"""`dockercomp-server enrol`: who may lend a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from source_server.commands.refused import Refused
from source_server.commands.tend import hand_over, key_file_option, opened, require_new

if TYPE_CHECKING:
    from source_server.services.accounts.enrol import Enrol

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def _span(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """A length of time: 12h, 7d, 4w; up to ten years."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", value)
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < span <= timedelta(days=3650):
        raise click.BadParameter(f"{value!r} is not a length of time like 12h, 7d or 4w.")
    return span


@click.group(
    epilog="""\b
Examples:
  dockercomp-server enrol key --uses 30 --expires 2w
  dockercomp-server enrol open --per-hour 20
"""
)
def enrol() -> None:
    """Say who may lend a machine: with a key that you hand out, or anybody."""


@enrol.command("key")
@click.option(
    "--uses", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Accounts that it makes."
)
@click.option(
    "--expires", callback=_span, default="7d", show_default=True, help="How long it is good: 12h, 7d, 4w."
)
@key_file_option
def key(uses: int, expires: timedelta, key_file: Path | None) -> None:
    """Make an enrolment key. It is shown this once; the server keeps only a hash."""
    require_new(key_file)
    with _refusing() as service:
        made = service.make_key(uses=uses, valid=expires)
    hand_over(made, key_file)


@enrol.command("open")
@click.option(
    "--per-hour", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many."
)
def open_doors(per_hour: int) -> None:
    """Let anybody who reaches the server enrol, without a key."""
    with _refusing() as service:
        service.open(per_hour=per_hour)
    click.echo(f"Anybody may enrol now, {per_hour} an hour.")


@enrol.command("close")
def close_doors() -> None:
    """Ask for an enrolment key again; accounts that were made stay."""
    with _refusing() as service:
        service.close()
    click.echo("Enrolment needs a key now.")


@enrol.command("status")
def status() -> None:
    """Show whether enrolment is open, and the keys that can still be used."""
    with _refusing() as service:
        now = service.status()
    doors = f"open, {now.this_hour} of {now.doors.per_hour} this hour" if now.doors.open else "needs a key"
    click.echo(f"Enrolment: {doors}.")
    for one in now.keys:
        made, expires = (f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (one.made, one.expires))
        click.echo(f"A key made {made}: {one.left} of {one.uses} left until {expires}")


@contextmanager
def _refusing() -> Iterator[Enrol]:
    """The service, its refusals turned into the command's."""
    from source_server.domain.refusal import Refusal
    from source_server.services.accounts.enrol import Enrol

    _, stores = opened("dockercomp-enrol")
    try:
        yield Enrol(stores)
    except Refusal as error:
        raise Refused(str(error)) from error
