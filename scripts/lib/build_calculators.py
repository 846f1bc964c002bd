"""Build the calculators that changed. Called by scripts/build-calculators, from the top folder of a checkout."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import base_image
import calculator_base
from build_images import cache_folder, input_hash, say
from docker_cli import INPUT_LABEL, Cannot, docker, require_engine

FOLDER = Path("images/calculators")
LABELS = ("os", "release", "language", "version")
LABEL = "dockercomp."
FEWEST = 18  #: environments that a whole build has to come to
NO_SYSTEM = "scratch"  #: what stands for the system of a program in an empty image
CHECK = (("7", "/", "2"), "3.5")


@dataclass(frozen=True)
class Place:
    """One environment: a language on a release."""

    language: str
    system: str  #: debian-12, or scratch

    @property
    def release(self) -> str:
        """The release's own name."""
        return calculator_base.RELEASES.get(self.system, NO_SYSTEM)

    @property
    def name(self) -> str:
        """What the environment is called everywhere: perl-bookworm."""
        return f"{self.language}-{self.release}"


@dataclass(frozen=True)
class Calculator:
    """An entry of the manifest."""

    name: str
    image: str  #: sha256:...
    tag: str
    action: list[str]  #: the command to which a calculation's three arguments are added
    os: str
    release: str
    language: str
    version: str
    bytes: int  #: unpacked


def main() -> int:
    wanted = arguments()
    try:
        require_engine()
        places = chosen(wanted.names)
        cache = cache_folder()
        with (cache / "calculators.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = build_all(places, wanted.tag, cache, wanted.parallel)
        if not wanted.names and len(made) < FEWEST:
            raise Cannot(f"Only {len(made)} calculators could be built; at least {FEWEST} are needed.")
    except Cannot as error:
        say(f"scripts/build-calculators: {error}")
        return 2
    write_manifest(made)
    for one in made:
        print(one.name, one.image, one.language, one.version, flush=True)
    return 0


def arguments() -> argparse.Namespace:
    """The command line: tag, parallel, names."""
    parser = argparse.ArgumentParser(
        prog="scripts/build-calculators", description="Build the calculators that changed."
    )
    parser.add_argument("--tag", default="dockercomp", metavar="PREFIX", help="PREFIX/calculator:perl-trixie")
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="builds at once (default: 2)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="perl-trixie, c-scratch, ... (default: all)")
    return parser.parse_args()


def chosen(names: list[str]) -> list[Place]:
    """All environments, or those named; raises Cannot for a name that is none."""
    systems = calculator_base.RELEASES
    places = [Place(language, system) for system in systems for language in calculator_base.LANGUAGES]
    known = {place.name: place for place in [*places, Place("c", NO_SYSTEM)]}
    if unknown := set(names) - set(known):
        raise Cannot(f"There is no calculator {min(unknown)}; there are {', '.join(known)}.")
    return [place for name, place in known.items() if not names or name in names]


def build_all(places: list[Place], prefix: str, cache: Path, parallel: int) -> list[Calculator]:
    """Build each of these; one that a release has not, or that does not calculate, is left out with a word."""
    missing = [place for place in places if same(place, prefix) is None]
    if any(place.system != NO_SYSTEM for place in missing):
        base_image.require_mmdebstrap(say)

    def made(place: Place) -> Calculator | None:
        try:
            return same(place, prefix) or build(place, prefix, cache)
        except Cannot as error:
            say(f"{place.name} is left out: {error}")
            return None

    with ThreadPoolExecutor(max(1, parallel)) as pool:
        return [one for one in pool.map(made, places) if one is not None]


def same(place: Place, prefix: str) -> Calculator | None:
    """The calculator, if it is here and was built from today's inputs."""
    try:
        found = inspected(tag_of(place, prefix))
    except Cannot as error:
        if "no such image" in str(error).lower():
            return None
        raise
    return (
        entry(place, prefix, found) if found["Config"]["Labels"].get(INPUT_LABEL) == key_of(place) else None
    )


def build(place: Place, prefix: str, cache: Path) -> Calculator:
    """Build an image and let it calculate once; raises Cannot."""
    say(f"Building the calculator {place.name} ...")
    tag = tag_of(place, prefix)
    with tempfile.TemporaryDirectory(dir=base_image.temporary_folder()) as folder:
        context = Path(folder)
        for path in sources(place):
            shutil.copy(path, context)
        if place.system == NO_SYSTEM:
            base, version = "scratch", compile_c(context)
        else:
            base = calculator_base.build(place.language, place.system, prefix, cache)
            version = calculator_base.version_of(base, place.language)
        for path in context.iterdir():
            path.chmod(0o755 if path.suffix == "" and path.name != "Dockerfile" else 0o644)
        said = dict(zip(LABELS, (place.system, place.release, place.language, version), strict=True))
        labels = [f"--label={LABEL}{name}={value}" for name, value in said.items()]
        labels.append(f"--label={INPUT_LABEL}={key_of(place)}")
        docker("build", "--tag", f"{tag}-new", f"--build-arg=BASE={base}", *labels, str(context))
    checked(f"{tag}-new")
    # Only what has calculated gets the name under which it is looked for.
    docker("tag", f"{tag}-new", tag)
    docker("rmi", "--no-prune", f"{tag}-new")
    return entry(place, prefix, inspected(tag))


def checked(image: str) -> None:
    """Raises Cannot unless the image calculates one thing."""
    question, answer = CHECK
    run = ("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", image)
    if (said := docker(*run, *question)) != answer:
        raise Cannot(f"It says that {' '.join(question)} is {said!r}.")


def compile_c(context: Path) -> str:
    """Compile the static program in `context`; the compiler's version. Raises Cannot."""
    compiler = os.environ.get("CC", "gcc")
    options = ("-static", "-O2", "-std=c11", "-Wall", "-Werror", "-s", "-ffp-contract=off")
    try:
        command = [compiler, *options, "-o", "calculate", "calculate.c"]
        done = subprocess.run(command, cwd=context, capture_output=True, text=True)
        version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True)
    except FileNotFoundError:
        raise Cannot(f"There is no {compiler}, which compiles it (Debian: gcc libc6-dev).") from None
    if done.returncode != 0:
        raise Cannot(f"{compiler} failed: {(done.stderr.splitlines() or ['nothing said'])[-1]}")
    (context / "calculate.c").unlink()
    return version.stdout.strip()


def sources(place: Place) -> list[Path]:
    """The files that a language's image is built from."""
    return sorted(path for path in (FOLDER / place.language).iterdir() if path.is_file())


def key_of(place: Place) -> str:
    """Hex sha256 of all that decides what an image is."""
    base = [] if place.system == NO_SYSTEM else [calculator_base.recipe(place.language, place.system)]
    return input_hash([place.name, os.uname().machine, *base, recipe()], sources(place))


def recipe() -> str:
    """Hex sha256 of this file: what it does to an image belongs to its inputs."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def tag_of(place: Place, prefix: str) -> str:
    """The tag of a calculator's image."""
    return f"{prefix}/calculator:{place.name}"


def inspected(tag: str) -> dict[str, Any]:
    """What the engine says of an image; raises Cannot."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", tag))[0]
    return found


def entry(place: Place, prefix: str, found: dict[str, Any]) -> Calculator:
    """What the manifest says of an image that is here: labels and command are the image's own."""
    return Calculator(
        name=place.name,
        image=found["Id"],
        tag=tag_of(place, prefix),
        action=found["Config"]["Entrypoint"],
        bytes=found["Size"],
        **{name: found["Config"]["Labels"][f"{LABEL}{name}"] for name in LABELS},
    )


def write_manifest(made: list[Calculator]) -> None:
    """var/images/calculators.json, whole or not at all; a build of some leaves the others in it."""
    path = Path(os.environ.get("DOCKERCOMP_HOME") or "var") / "images" / "calculators.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {one["name"]: one for one in json.loads(path.read_text())["calculators"]} if path.exists() else {}
    known |= {one.name: asdict(one) for one in made}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(
        json.dumps({"calculators": sorted(known.values(), key=lambda one: one["name"])}, indent=1)
    )
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
