"""Files that survive a crash at any moment: whole under their name, or not there."""

from __future__ import annotations

import os
from pathlib import Path

#: What an interrupted write leaves behind; swept at the next start.
UNFINISHED = ".tmp"


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` under `path`: temporary name, fsync, rename, fsync of the folder. Raises OSError, leaves nothing."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
