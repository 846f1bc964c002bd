"""The archive that the installer unpacks on a volunteer's machine; the same checkout gives the same bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

#: Where each part of a checkout goes.
PLACES = {
    "client_container": "lib/client_container",
    "playbooks": "playbooks",
    "install": "install",
    "locks/launcher.txt": "locks/launcher.txt",
    "locks/install.txt": "locks/install.txt",
}
NEEDED = ("install/install.sh", "playbooks", "client_container", "locks/launcher.txt", "locks/install.txt")

_CACHES = {"__pycache__", "node_modules"}
_LEFTOVERS = (".pyc", ".pyo", ".swp", "~", ".orig", ".rej", ".retry")
_MOMENT = 1_577_836_800  #: 2020-01-01: every file's time, since a checkout's are by chance


class NoCheckout(Exception):
    """The folder is no checkout that a release can be made from; the message is one sentence."""


def require_checkout(folder: Path) -> None:
    """Raises NoCheckout unless everything that a release takes is there."""
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise NoCheckout(f"{folder} is no checkout to make a release from: it lacks {', '.join(missing)}.")


def write_payload(checkout: Path, version: str, out: IO[bytes]) -> None:
    """Write the tar.gz of the installer's files; raises NoCheckout."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        _add(archive, "VERSION", f"{version}\n".encode(), executable=False)
        for name, path in sorted(_files(checkout)):
            _add(archive, name, path.read_bytes(), executable=bool(path.stat().st_mode & 0o100))


def _files(checkout: Path) -> Iterator[tuple[str, Path]]:
    for source, place in PLACES.items():
        root = checkout / source
        if root.is_file():
            yield place, root
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if _is_leftover(inside) or path.is_dir():
                continue
            if path.is_symlink() or not path.is_file():
                raise NoCheckout(f"{path} is no ordinary file, and a release holds nothing else.")
            yield f"{place}/{inside.as_posix()}", path


def _is_leftover(path: Path) -> bool:
    hidden = any(part in _CACHES or part.startswith(".") for part in path.parts)
    return hidden or path.name.endswith(_LEFTOVERS)


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, executable: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), _MOMENT, 0o755 if executable else 0o644
    archive.addfile(entry, io.BytesIO(content))
