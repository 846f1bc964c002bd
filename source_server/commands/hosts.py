"""`dockercomp-server host`: the record of volunteers' hosts, and the end of a quarantine."""

from __future__ import annotations

import click

from source_server.commands.refused import Refused
from source_server.commands.tend import opened


@click.group(
    epilog="""\b
Examples:
  dockercomp-server host list
  dockercomp-server host clear volunteer-5625d478 82daf70c-3c00-427f-add1-d17c323ad24d
"""
)
def host() -> None:
    """See how volunteers' hosts fared, and clear one that was quarantined."""


@host.command("list")
@click.option("--quarantined", is_flag=True, help="Only those that get nothing but canaries now.")
def list_hosts(quarantined: bool) -> None:
    """Show account, host, how many chunks it may hold, agreements, disagreements, and why it is quarantined."""
    from source_server.domain.refusal import Refusal

    _, stores = opened("dockercomp-host")
    try:
        records = stores.hosts.quarantined() if quarantined else stores.hosts.all(None)
        pseudonyms = stores.accounts.pseudonyms({one.account for one in records})
    except Refusal as error:
        raise Refused(str(error)) from error
    for one in records:
        limit = "new" if one.limit is None else f"{one.limit:g}"
        state = f"quarantined: {one.why}" if one.quarantined else "in order"
        account = pseudonyms.get(one.account, "?")
        click.echo(f"{account}\t{one.host}\t{limit}\t{one.agreed}\t{one.disagreed}\t{state}")


@host.command("clear")
@click.argument("account")
@click.argument("host_id", metavar="HOST")
def clear(account: str, host_id: str) -> None:
    """End the quarantine of HOST of ACCOUNT (its pseudonym): its trouble is over."""
    from source_server.domain.refusal import Refusal
    from source_server.services.containers.hosts import Hosts
    from source_server.services.containers.live import LiveContainers

    _, stores = opened("dockercomp-host")
    try:
        cleared = Hosts(stores, LiveContainers(stores)).clear(account, host_id.lower())
    except Refusal as error:
        raise Refused(str(error)) from error
    click.echo(f"{host_id} is cleared." if cleared else f"{host_id} is not quarantined.")
