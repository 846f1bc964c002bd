"""`dockercomp-server image`: the images that jobs run in, kept here as archives."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from source_server.commands.refused import Refused
from source_server.commands.tend import opened

if TYPE_CHECKING:
    from source_server.services.files.images import Images

_GZIP = b"\x1f\x8b"


@click.group(
    epilog="""\b
Examples:
  docker save fits:1.4 | dockercomp-server image add -
  dockercomp-server image list
"""
)
def image() -> None:
    """Keep the images that jobs run in, so that a project needs no registry."""


@image.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
def add(file: Path) -> None:
    """Store FILE, made with `docker save IMAGE`; - reads it from a pipe. Its tags are taken off.

    The id that it shows is what jobs name: dockercomp submit --image ID.
    """
    from source_server.image_archive import BadArchive

    try:
        with _refusing() as images, _plain(file) as path:
            stored, new = images.add(path)
    except BadArchive as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{file} cannot be read ({error.strerror or error}).") from error
    megabytes = f"{stored.bytes / 1e6:.1f} MB, for {stored.os} on {stored.architecture}"
    click.echo(f"{stored.id}  {megabytes}{'' if new else '; it was here already'}")


@image.command("list")
def list_images() -> None:
    """Show ids, architectures, bytes of the archive, bytes unpacked, and since when, the newest first."""
    with _refusing() as images:
        for one in images.all():
            click.echo(
                f"{one.id}\t{one.architecture}\t{one.bytes}\t{one.size}\t{one.added:%Y-%m-%d %H:%M} UTC"
            )


@image.command("remove")
@click.argument("image_id", metavar="ID")
def remove(image_id: str) -> None:
    """Forget the image ID. Machines that fetched it keep it; others cannot run its jobs any more."""
    with _refusing() as images:
        images.remove(image_id)
    click.echo(f"{image_id} is removed.")


@contextmanager
def _refusing() -> Iterator[Images]:
    """The service, its refusals turned into the command's."""
    from source_server.domain.refusal import Refusal
    from source_server.services.files.images import Images

    _, stores = opened("dockercomp-image")
    try:
        yield Images(stores)
    except Refusal as error:
        raise Refused(str(error)) from error


@contextmanager
def _plain(file: Path) -> Iterator[Path]:
    """The archive as a file that can be read twice and anywhere: a pipe or a packed file is written out first."""
    if str(file) != "-":
        with file.open("rb") as opened_file:
            packed = opened_file.read(2) == _GZIP
        if not packed:
            yield file
            return
    with tempfile.NamedTemporaryFile(prefix="dockercomp-image-", suffix=".tar") as copy:
        if str(file) == "-":
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            _unpack(file, copy)
        copy.flush()
        yield Path(copy.name)


def _unpack(file: Path, out: IO[bytes]) -> None:
    try:
        with gzip.open(file) as plain:
            shutil.copyfileobj(plain, out)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{file} is damaged, or is not all there ({error}).") from error
