"""`dockercomp-server housekeep | migrate | account | container`: what an operator does to a database that is there."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from source_server.commands.refused import Refused, read_settings

if TYPE_CHECKING:
    from source_server.config import Settings
    from source_server.stores.database import Stores


@click.command(epilog="\b\nExample:\n  DOCKERCOMP_MONGO_URI=mongodb://... dockercomp-server housekeep\n")
def housekeep() -> None:
    """Purge, expire, settle and deal on, until stopped. `up` runs this; more of them may run side by side."""
    from source_server import housekeeping
    from source_server.event_log import log_events

    log_events()
    settings, stores = opened("dockercomp-housekeeping")
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    housekeeping.run(stores, beat_s=settings.beat_s, settings=settings)


@click.command(epilog="\b\nExample:\n  dockercomp-server migrate\n")
def migrate() -> None:
    """Lay the database out for this release; an up-to-date one stays as it is. `up` does this by itself."""
    from source_server.domain.refusal import Refusal
    from source_server.stores import database
    from source_server.stores.meta import SchemaUnknown

    _, stores = opened("dockercomp-migrate", laid_out=False)
    try:
        click.echo(f"Database: {database.migrate(stores)}.")
    except (Refusal, SchemaUnknown) as error:
        raise Refused(str(error)) from error


@click.group(
    epilog="""\b
Examples:
  dockercomp-server account add ada --role scientist --key-file ada.key
  dockercomp-server account list
"""
)
def account() -> None:
    """Make accounts and give them keys."""


key_file_option = click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key into this new file, readable only by you, instead of showing it.",
)


@account.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["volunteer", "scientist", "admin"]), required=True)
@key_file_option
@click.option("--if-missing", is_flag=True, help="With --key-file: be content if file and account are there.")
def add(name: str, role: str, key_file: Path | None, if_missing: bool) -> None:
    """Make the account NAME. Its key is shown this once; the server keeps only a hash."""
    from source_server.domain.account import Role
    from source_server.domain.refusal import Refusal
    from source_server.services.accounts.people import People

    _, stores = opened("dockercomp-account")
    people = People(stores)
    if if_missing and key_file is not None and key_file.exists():
        if people.is_key_of(key_file.read_text().strip(), name):
            return
        key_file.unlink()  # a key of another database: useless here
    require_new(key_file)
    try:
        known = if_missing and stores.accounts.find_by_name(name) is not None
        key = people.new_key(name) if known else people.add(name, Role(role))
    except Refusal as error:
        raise Refused(str(error)) from error
    hand_over(key, key_file)


@account.command("built-in", hidden=True)
@click.option("--key-file", required=True, type=click.Path(dir_okay=False, path_type=Path))
def built_in_account(key_file: Path) -> None:
    """See to it that the file holds a key of the account of the server's own containers."""
    from source_server.domain.refusal import Refusal
    from source_server.services.accounts.people import People

    _, stores = opened("dockercomp-account")
    people = People(stores)
    try:
        if key_file.exists():
            if people.is_built_in_key(key_file.read_text().strip()):
                return
            key_file.unlink()  # a key of another database: useless here
        hand_over(people.built_in(), key_file)
    except Refusal as error:
        raise Refused(str(error)) from error


@account.command("new-key")
@click.argument("name")
@key_file_option
def new_key(name: str, key_file: Path | None) -> None:
    """Give the account NAME a new key; the earlier one ends at once."""
    from source_server.domain.refusal import Refusal
    from source_server.services.accounts.people import People

    require_new(key_file)
    _, stores = opened("dockercomp-account")
    try:
        key = People(stores).new_key(name)
    except Refusal as error:
        raise Refused(str(error)) from error
    hand_over(key, key_file)


@account.command("list")
def list_accounts() -> None:
    """Show names, roles and the pseudonyms that exports carry."""
    from source_server.domain.refusal import Refusal

    _, stores = opened("dockercomp-account")
    try:
        for one in stores.accounts.all():
            click.echo(f"{one.name}\t{one.role.value}\t{one.pseudonym}")
    except Refusal as error:
        raise Refused(str(error)) from error


@click.group(
    epilog="""\b
Examples:
  dockercomp-server container list
  dockercomp-server container trust 0786b00e-7843-49fd-8aa9-25242fdfbfe5
"""
)
def container() -> None:
    """See client containers, and say which of them may run validators."""


@container.command("trust")
@click.argument("container_id", metavar="ID")
def trust(container_id: str) -> None:
    """Label the container ID trusted: scientists' validators may run there. The label outlives its restarts."""
    _set_trusted(container_id, True)
    click.echo(f"{container_id} may run validators.")


@container.command("distrust")
@click.argument("container_id", metavar="ID")
def distrust(container_id: str) -> None:
    """Take the label from the container ID; what it computes just now counts still."""
    _set_trusted(container_id, False)
    click.echo(f"{container_id} may not run validators any more.")


@container.command("list")
def list_containers() -> None:
    """Show ids, states, whether trusted, accounts and hosts, live ones first."""
    from source_server.domain.refusal import Refusal

    _, stores = opened("dockercomp-container")
    try:
        names = {one.id: one.name for one in stores.accounts.all()}
        for one in stores.containers.all():
            trusted = "trusted" if one.trusted else "-"
            account_name = names.get(one.account, one.account)
            host = one.host.name or one.host.id
            click.echo(f"{one.id}\t{one.state.value}\t{trusted}\t{account_name}\t{host}")
    except Refusal as error:
        raise Refused(str(error)) from error


def _set_trusted(container_id: str, trusted: bool) -> None:
    from source_server.domain.refusal import Refusal

    _, stores = opened("dockercomp-container")
    try:
        known = stores.containers.set_trusted(container_id, trusted)
    except Refusal as error:
        raise Refused(str(error)) from error
    if not known:
        raise Refused(f"There is no container {container_id}; `container list` shows them.")


def opened(application: str, *, laid_out: bool = True) -> tuple[Settings, Stores]:
    """The settings and the stores they name; with `laid_out`, Refused unless this release knows the schema."""
    from source_server.domain.refusal import Refusal
    from source_server.server_home import ServerHome
    from source_server.stores.database import open_stores
    from source_server.stores.meta import SchemaUnknown
    from source_server.stores.mongod_files import find_uri

    settings = read_settings()
    uri = settings.mongo_uri or find_uri(ServerHome(settings.server_home).mongodb)
    if uri is None:
        raise Refused("No database runs: `dockercomp-server up` starts one, or set DOCKERCOMP_MONGO_URI.")
    stores = open_stores(uri, settings.database, application=application)
    try:
        if laid_out:
            stores.meta.require_schema()
    except (Refusal, SchemaUnknown) as error:
        raise Refused(str(error)) from error
    return settings, stores


def require_new(key_file: Path | None) -> None:
    """Raises Refused when the file for a key is there already."""
    if key_file is not None and key_file.exists():
        raise Refused(f"{key_file} is there already: name another file, or remove it first.")


def hand_over(key: str, key_file: Path | None) -> None:
    """Show a new key, or write it into a new file that only its owner reads."""
    if key_file is None:
        click.echo(key)
        return
    key_file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(key + "\n")
    click.echo(f"The key is in {key_file}.")


def _leave(signum: int, frame: object) -> NoReturn:
    # Every step is safe to break off anywhere: that is what the protocol is made for. An exception would not do:
    # the scheduler catches whatever is raised while it starts a step, this one too, and would go on.
    os._exit(0)
