"""The base of the client image: pulled from a registry, or built from the machine's own Debian mirror."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from docker_cli import INPUT_LABEL, Cannot, docker, find_image

PUBLIC = "python:3.12-slim"  #: the same as in images/client/Dockerfile
PULL_LIMIT_S = 60
RECIPE = Path("images/base/packages.txt")

Say = Callable[[str], None]


def resolve(base: str, prefix: str, cache: Path, say: Say) -> str:
    """The tag of a base image that is on this machine now; `base` is auto, pull, build or an image's name."""
    if base == "pull":
        return pull(PUBLIC, say)
    if base == "build":
        return build(prefix, cache, say)
    if base != "auto":
        return base if find_image(base) else pull(base, say)
    if find_image(PUBLIC):
        return PUBLIC
    if is_built(prefix):
        return tag_of(prefix)
    try:
        return pull(PUBLIC, say)
    except Cannot as no_registry:
        say(f"{no_registry} Building a small base instead.")
    return build(prefix, cache, say)


def pull(name: str, say: Say) -> str:
    """Pull the image `name` within PULL_LIMIT_S; raises Cannot."""
    say(f"Pulling {name} ...")
    docker("pull", "--quiet", name, timeout=PULL_LIMIT_S)
    return name


def build(prefix: str, cache: Path, say: Say) -> str:
    """The small base, extracted from Debian packages (images/base); raises Cannot where that cannot be."""
    tag = tag_of(prefix)
    if is_built(prefix):
        return tag
    archive = cache / f"base-{recipe_hash()[:16]}.tar"
    if not archive.exists():
        extract_packages(archive, say)
    docker("import", "--change", f"LABEL {INPUT_LABEL}={recipe_hash()}", str(archive), tag)
    return tag


#: What mmdebstrap takes over from this machine (its proxy, its name) is nobody's business. A variant that only extracts
#: runs no customize hooks.
CLEARED = (
    '--extract-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/hostname" "$1/etc/resolv.conf" '
    '"$1/etc/apt/sources.list"'
)


def tag_of(prefix: str) -> str:
    """The tag of the small base."""
    return f"{prefix}/base:latest"


def is_built(prefix: str) -> bool:
    """Whether this machine has the small base of today's recipe."""
    image = find_image(tag_of(prefix))
    return image is not None and image.input == recipe_hash()


def recipe_hash() -> str:
    """Hex sha256 of all that decides what the small base contains, but for the mirror's point releases."""
    return hashlib.sha256("\n".join([suite(), platform.machine(), CLEARED, *packages()]).encode()).hexdigest()


def packages() -> list[str]:
    """The packages of images/base/packages.txt."""
    lines = (line.split("#")[0].strip() for line in RECIPE.read_text().splitlines())
    return [line for line in lines if line]


def suite() -> str:
    """The suite to take packages from: the machine's own on Ubuntu, bookworm everywhere else."""
    release = os_release()
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "ubuntu" else "bookworm"


def extract_packages(archive: Path, say: Say) -> None:
    """Write the tar archive of the small base with mmdebstrap; needs root on Debian or Ubuntu."""
    require_mmdebstrap(say)
    say(f"Building the small base from {', '.join(packages())} of {suite()} ...")
    options = ["--variant=extract", f"--include={','.join(packages())}", CLEARED]
    make_archive(archive, suite(), mirror(), options, failed="mmdebstrap could not build the small base")


def make_archive(archive: Path, of: str, source: str, options: Sequence[str], *, failed: str) -> None:
    """Write the tar archive of a system of the suite `of` from the mirror `source`, whole or not at all.

    Raises Cannot: `failed`, and mmdebstrap's first complaint.
    """
    partial = archive.with_name(archive.name + ".partial")
    done = subprocess.run(
        ["mmdebstrap", "--format=tar", *options, *apt_options(), of, str(partial), source],
        env={**os.environ, "TMPDIR": temporary_folder()},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["nothing said"]
        raise Cannot(f"{failed}: {errors[0]}")
    partial.replace(archive)


def require_mmdebstrap(say: Say) -> None:
    """Have mmdebstrap, installing it where that is possible; raises Cannot with what is missing."""
    if shutil.which("apt-get") is None or os.getuid() != 0:
        raise Cannot(
            f"There is no base image: {PUBLIC} is not here, and building a small one needs root on Debian or "
            "Ubuntu (or name one that is here: --base IMAGE)."
        )
    if shutil.which("mmdebstrap") is not None:
        return
    say("Installing mmdebstrap ...")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=env)
        if done.returncode != 0:
            raise Cannot(f"apt-get could not install mmdebstrap: {(done.stderr.splitlines() or ['?'])[-1]}")


def mirror() -> str:
    """The package mirror that this machine's own apt uses for its release; raises Cannot when it has none."""
    own = os_release().get("VERSION_CODENAME", "")
    said = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
    ).stdout
    for line in said.splitlines():
        uri, release, component = line.split(" ")
        if release in (own, "stable") and component == "main":
            return uri
    raise Cannot(f"The apt sources of this machine name no mirror of {own or 'its release'}.")


def apt_options() -> list[str]:
    """What this machine's apt is told about proxies and dates, for the apt that fills the base."""
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    names = ("http::Proxy", "https::Proxy", "Check-Valid-Until", "Check-Date")
    wanted = tuple(f"Acquire::{name} " for name in names)
    options = [f"--aptopt={line.rstrip(';')}" for line in said.splitlines() if line.startswith(wanted)]
    # mmdebstrap writes them into the base as well, where they are nobody's business.
    return [*options, '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"']


def os_release() -> dict[str, str]:
    """/etc/os-release as a mapping; empty where there is none."""
    path = Path("/etc/os-release")
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def temporary_folder() -> str:
    """A folder in memory where there is one: unpacking packages syncs every file."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else os.environ.get("TMPDIR", "/tmp")
