"""`dockercomp-server release`: the signed files that volunteers install from. Run it away from the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from source_server.commands.refused import Refused, read_settings

_file = click.Path(dir_okay=False, path_type=Path)


@click.group(
    epilog="""\b
Examples:
  dockercomp-server release keygen --key ~/release.key
  dockercomp-server release make --key ~/release.key --client-image client.tar --out releases
  rsync -a releases/ server.example:/var/lib/dockercomp/server-home/releases/
"""
)
def release() -> None:
    """Make and sign what volunteers install from, on a machine that is not the server.

    The private key stays on that machine: a server that finds one among its releases does not start.
    """


@release.command("keygen")
@click.option(
    "--key", "key_file", type=_file, required=True, help="Write the private key into this new file."
)
def keygen(key_file: Path) -> None:
    """Make the key that signs releases: the private one in FILE, the public one in FILE.pub; show its fingerprint."""
    from source_server.release.keys import BadKey, make_key, public_path

    try:
        shown = make_key(key_file)
    except BadKey as error:
        raise Refused(str(error)) from error
    click.echo(
        f"The private key is in {key_file}: keep it off every server. {public_path(key_file)} may be shown."
    )
    click.echo(f"Fingerprint: {shown}")


@release.command("make")
@click.option("--key", "key_file", type=_file, required=True, help="The private key that `keygen` made.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make the release's folder in here.  [default: DOCKERCOMP_RELEASES, else DOCKERCOMP_HOME/releases]",
)
@click.option("--version", help="The release's version.  [default: the one in pyproject.toml]")
@click.option(
    "--expires-days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    help="Installers refuse the release after so many days.",
)
@click.option(
    "--client-image",
    "client_images",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    multiple=True,
    help="The client's image as `docker save` writes it; once for each architecture.",
)
@click.option(
    "--checkout",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path(),
    show_default=True,
    help="The checkout to make it from.",
)
def make(
    key_file: Path,
    out: Path | None,
    version: str | None,
    expires_days: int,
    client_images: Sequence[Path],
    checkout: Path,
) -> None:
    """Make a release from a checkout: OUT/VERSION with the installer's archive, client images, hashes, signature."""
    from source_server.image_archive import BadArchive
    from source_server.release.keys import BadKey
    from source_server.release.make import NotMade, make_release, version_of
    from source_server.release.payload import NoCheckout

    try:
        made = make_release(
            checkout,
            out or read_settings().releases,
            key_file=key_file,
            version=version or version_of(checkout),
            made=datetime.now(timezone.utc).replace(microsecond=0),
            valid=timedelta(days=expires_days),
            client_images=client_images,
        )
    except (NotMade, NoCheckout, BadKey, BadArchive) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{error.filename or out} cannot be used ({error.strerror}).") from error
    click.echo(
        f"The release {made.sums.version} is in {made.folder}, and expires on {made.sums.expires:%Y-%m-%d}."
    )
    for image in made.sums.images:
        click.echo(f"Client image for {image.architecture}: {image.id}")
    click.echo(f"Signed by: {made.fingerprint}")
