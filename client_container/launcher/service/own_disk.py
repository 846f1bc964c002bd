"""A file system of fixed size for the slots, where no installer has made one: an image file, mounted while we run."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

LIMIT_S = 120.0  #: longest that making one takes
FREE_AFTER = 512 * 2**20  #: bytes that have to stay free beside it


class NoDisk(Exception):
    """It cannot be made here; the message is one sentence."""


@contextlib.contextmanager
def own_disk(home: Path, size: int) -> Iterator[str | None]:
    """Have home/slots be a file system of its own; yields why it is not, or None. Unmounts at the end.

    One that a launcher left behind when it was killed is taken over; its size is that of the image, once it is made.
    """
    slots, image = home / "slots", home / "slots.img"
    slots.mkdir(mode=0o711, parents=True, exist_ok=True)
    why = None
    if not os.path.ismount(slots):
        try:
            _make(image, size)
            _run("mount", "-o", "loop,nodev,nosuid,noexec,noatime", str(image), str(slots))
        except NoDisk as error:
            why = str(error)
            log.warning("jobs share the machine's disk", extra={"why": why})
    try:
        yield why
    finally:
        if os.path.ismount(slots):
            unmount(slots)


def _make(image: Path, size: int) -> None:
    if image.exists():
        return
    if shutil.disk_usage(image.parent).free < size + FREE_AFTER:
        raise NoDisk(f"there is no room for an image of {size >> 20} MiB on the disk")
    partial = image.with_name("slots.img.partial")
    try:
        with partial.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NoDisk(f"{partial.name} cannot be written: {error.strerror}") from error
    _run("mkfs.ext4", "-q", "-m", "0", "-F", "-L", "dockercomp", str(partial))
    partial.rename(image)


def unmount(slots: Path) -> None:
    """Take the file system away; its image stays."""
    try:
        _run("umount", str(slots))
    except NoDisk:
        # Something still looks into it: it goes when that one does.
        with contextlib.suppress(NoDisk):
            _run("umount", "--lazy", str(slots))


def _run(*argv: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoDisk(f"{argv[0]} cannot be run ({error})") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["without a word"]
        raise NoDisk(f"{argv[0]} failed: {said[0]}")
