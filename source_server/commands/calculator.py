"""`dockercomp-server calculator`: the calculators, enabled from the manifest that their build wrote."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from source_server.commands.refused import Refused, read_settings
from source_server.commands.tend import opened

if TYPE_CHECKING:
    from source_server.domain.calculation import Environment
    from source_server.services.calculators.enable_calculators import EnableCalculators
    from source_server.stores.database import Stores

MOST_MANIFEST = 2**20
_FIELDS = ("name", "image", "os", "release", "language", "version")


@click.group(
    epilog="""\b
Examples:
  scripts/build-calculators && dockercomp-server calculator enable
  dockercomp-server calculator enable --cross-check 3
  dockercomp-server calculator list
"""
)
def calculator() -> None:
    """Let people calculate on volunteers' machines: the page /calculator."""


@calculator.command(
    "enable",
    epilog="""\b
Examples:
  dockercomp-server calculator enable --cross-check 3
  dockercomp-server calculator enable calculators.json --without tcl-bullseye
""",
)
@click.argument(
    "manifest",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="[MANIFEST]",
)
@click.option(
    "--cross-check",
    type=click.IntRange(2, 5),
    metavar="Q",
    help="Offer to have Q environments compute a calculation and compare them.",
)
@click.option("--without", multiple=True, metavar="NAME", help="Leave this calculator out; may be repeated.")
def enable(manifest: Path | None, cross_check: int | None, without: tuple[str, ...]) -> None:
    """Store the images that MANIFEST names, and take calculations.

    MANIFEST is what scripts/build-calculators wrote, var/images/calculators.json below DOCKERCOMP_HOME unless it is
    named. Said again with other calculators, it puts them in the place of the earlier ones.
    """
    path = manifest or read_settings().home / "images" / "calculators.json"
    environments = [one for one in read_manifest(path) if one.name not in without]
    with _service() as (stores, service):
        new = sum(_store_image(stores, one) for one in environments)
        made = service(environments, cross_check)
    click.echo(f"{len(made.environments)} calculators are enabled, {new} of their images are new here.")
    if made.quorum is not None:
        click.echo(f"A checked calculation goes to {made.quorum} of them, which have to agree.")


@calculator.command("disable", epilog="\b\nExample:\n  dockercomp-server calculator disable\n")
def disable() -> None:
    """Take no more calculations; those that wait are still computed."""
    with _service() as (_, service):
        gone = service.disable()
    click.echo("No calculator is enabled any more." if gone else "No calculator was enabled.")


@calculator.command("list", epilog="\b\nExample:\n  dockercomp-server calculator list\n")
def list_calculators() -> None:
    """Show the calculators: name, language, version, system, and how often others agreed and disagreed of late."""
    from source_server.services.calculators.read_calculations import ReadCalculations

    with _service() as (stores, _):
        setting = stores.calculations.setting()
        if setting is None:
            raise Refused("No calculator is enabled; do it with `dockercomp-server calculator enable`.")
        counts = ReadCalculations(stores).standing(setting)
    for one in setting.environments:
        said = counts[one.name]
        agreed = said.get("agreed", 0) + said.get("accepted", 0)
        click.echo(
            f"{one.name}\t{one.language} {one.version}\t{one.os}\tagreed {agreed}\tdisagreed {said.get('disagreed', 0)}"
        )


def read_manifest(path: Path) -> list[Environment]:
    """The environments that a manifest names; raises Refused."""
    from source_server.domain.calculation import Environment

    try:
        if path.stat().st_size > MOST_MANIFEST:
            raise ValueError("it is too large")
        entries: list[dict[str, Any]] = json.loads(path.read_text())["calculators"]
        return [
            Environment(
                action=tuple(str(word) for word in one["action"]),
                **{name: str(one[name]) for name in _FIELDS},
            )
            for one in entries
        ]
    except FileNotFoundError:
        raise Refused(
            f"There is no {path}: make it with scripts/build-calculators, or name another."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is no manifest of calculators ({error}).") from error


def _store_image(stores: Stores, one: Environment) -> bool:
    """Have the server keep the image that the engine of this machine has, unless it does; whether it was new."""
    from source_server.image_archive import BadArchive
    from source_server.services.files.images import Images

    if stores.images.find(one.image) is not None:
        return False
    with tempfile.TemporaryDirectory(prefix="dockercomp-image-") as folder:
        archive = Path(folder) / "image.tar"
        _save(one, archive)
        try:
            return Images(stores).add(archive)[1]
        except BadArchive as error:
            raise Refused(f"{one.name}: {error}") from error


def _save(one: Environment, archive: Path) -> None:
    command = [os.environ.get("DOCKER", "docker"), "save", "--output", str(archive), one.image]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise Refused(
            f"{one.name}'s image is not here, and there is no docker command to take it from an engine; bring it with "
            "`dockercomp-server image add`."
        ) from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Refused(f"{one.name}'s image {one.image} cannot be had from the Docker engine: {said}")


@contextmanager
def _service() -> Iterator[tuple[Stores, EnableCalculators]]:
    """The stores and the service, its refusals turned into the command's."""
    from source_server.app import build_services
    from source_server.domain.refusal import Refusal
    from source_server.services.calculators.enable_calculators import EnableCalculators

    settings, stores = opened("dockercomp-calculator")
    try:
        services = build_services(stores, beat_s=settings.beat_s)
        yield stores, EnableCalculators(stores, services.tasks, services.append)
    except Refusal as error:
        raise Refused(str(error)) from error
