"""Where jobs keep their files on the host: a folder for each job container, and checkpoints that outlast it.

    jobs/<slot>-<token>/{in,out,checkpoint}   of one job container; `chunk` names what its checkpoint belongs to
    checkpoints/<sha256 of chunk and instance>   what was in /checkpoint when a chunk ended without a result

A checkpoint is moved, not copied: into the folder of the container that goes on with the chunk, and back when that
one ends without a result. After a crash `rescue` finds it there. None of this is reachable for a client container.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from client_container.launcher.files import folders
from client_container.launcher.files.folders import opened

log = logging.getLogger(__name__)

KEPT_S = 7 * 86400.0  #: a checkpoint that nobody came back for
MOST_CHECKPOINTS = 200


class Places:
    """The folders of one instance's jobs, below `base`, which must be on one file system."""

    def __init__(self, base: Path, *, instance: str) -> None:
        self._jobs, self._checkpoints, self._instance = base / "jobs", base / "checkpoints", instance

    def prepare(self) -> None:
        """Make the folders that hold the others; raises OSError."""
        for folder in (self._jobs, self._checkpoints):
            # Passable for the engine and nobody's to list: job uids own what is below, not these.
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    def folder(self, name: str) -> Path:
        """The folder of a job container."""
        return self._jobs / name

    def has_checkpoint(self, chunk: str) -> bool:
        """Whether a chunk was left off here."""
        return self._checkpoint(chunk).is_dir()

    def make(self, name: str, chunk: str, *, uid: int) -> Path:
        """The folder of a new job container, the chunk's checkpoint in it; raises OSError."""
        self.prepare()
        folder = self._jobs / name
        folder.mkdir(mode=0o711)
        readable(folder / "in")
        self._make_writable(folder / "out", uid)
        self.assign(folder, chunk)
        with contextlib.suppress(FileNotFoundError):
            self._checkpoint(chunk).rename(folder / "checkpoint")
        if not (folder / "checkpoint").exists():
            (folder / "checkpoint").mkdir()
        self._make_writable(folder / "checkpoint", uid)
        return folder

    def assign(self, folder: Path, chunk: str) -> None:
        """Note whose checkpoint the folder holds from now on."""
        partial = folder / "chunk.partial"
        partial.write_text(self._checkpoint(chunk).name)
        partial.replace(folder / "chunk")

    def remove(self, folder: Path, *, keep_checkpoint: bool) -> None:
        """Remove a job container's folder, the container being gone; what cannot be removed now is swept later."""
        try:
            if keep_checkpoint:
                self._keep_checkpoint(folder)
            folders.remove(folder)
        except OSError as error:
            log.warning("job folder stays", extra={"folder": folder.name, "reason": error.strerror})

    def forget_checkpoint(self, folder: Path) -> None:
        """The chunk has its result: empty the container's /checkpoint. Raises OSError."""
        with opened(folder / "checkpoint") as checkpoint:
            folders.empty(checkpoint)

    def rescue(self, known: Callable[[], set[str]]) -> None:
        """Keep the checkpoints and remove the folders of job containers that are not `known` (any more).

        `known` is asked once the folders are listed: one that is made meanwhile is in it, or is not listed.
        """
        there = self._listed(self._jobs)
        names = known()
        for folder in there:
            if folder.name not in names:
                self.remove(folder, keep_checkpoint=True)

    def sweep(self, *, now: float) -> None:
        """Remove checkpoints that are too old or too many. `now` as of time.time."""
        ages = sorted((now - folder.lstat().st_mtime, folder) for folder in self._listed(self._checkpoints))
        for place, (age, folder) in enumerate(ages):
            if age > KEPT_S or place >= MOST_CHECKPOINTS:
                with contextlib.suppress(OSError):
                    folders.remove(folder)

    def _keep_checkpoint(self, folder: Path) -> None:
        if not any((folder / "checkpoint").iterdir()):
            return
        kept = self._checkpoints / (folder / "chunk").read_text()
        with contextlib.suppress(FileNotFoundError):
            folders.remove(kept)
        (folder / "checkpoint").rename(kept)
        now = time.time()
        os.utime(kept, (now, now))

    def _make_writable(self, folder: Path, uid: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, uid, uid, follow_symlinks=False)

    def _checkpoint(self, chunk: str) -> Path:
        digest = hashlib.sha256(f"{chunk}\0{self._instance}".encode()).hexdigest()
        return self._checkpoints / digest

    @staticmethod
    def _listed(folder: Path) -> list[Path]:
        return list(folder.iterdir()) if folder.is_dir() else []


def readable(folder: Path) -> None:
    """Make a folder that the job may read, whatever our umask."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
