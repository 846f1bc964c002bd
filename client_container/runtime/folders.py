"""Each job's own folder: made before it, gone after it, swept when a client died in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from client_container.runtime.contract import CHUNK_FILE


@dataclass(frozen=True)
class JobFolder:
    """Where one execution lives."""

    base: Path
    checkpoint: Path  #: not in it, for it outlasts the execution

    @property
    def inside(self) -> Path:
        """What the program is given to read."""
        return self.base / "in"

    @property
    def out(self) -> Path:
        """The files that it makes."""
        return self.base / "out"

    @property
    def work(self) -> Path:
        """The program's current directory and HOME."""
        return self.base / "work"

    @property
    def chunk(self) -> Path:
        """The chunk's JSON text."""
        return self.inside / CHUNK_FILE

    def places(self) -> Mapping[str, str]:
        """The variables that tell the program where it may read and write."""
        return {
            "HOME": str(self.work),
            "TMPDIR": str(self.work),
            "DOCKERCOMP_IN": str(self.inside),
            "DOCKERCOMP_OUT": str(self.out),
            "DOCKERCOMP_CHECKPOINT": str(self.checkpoint),
        }


@contextlib.contextmanager
def job_folder(parent: Path, checkpoint: Path, *, uid: int | None) -> Iterator[JobFolder]:
    """A folder whose `inside` is to be filled, owned by `uid` (None: by us), removed at the end; raises OSError."""
    folder = JobFolder(Path(tempfile.mkdtemp(dir=parent, prefix="job-")), checkpoint)
    try:
        for name in ("in", "out", "work"):
            (folder.base / name).mkdir(mode=0o755 if name == "in" else 0o700)
        if uid is not None:
            # The job's group may pass through; what it is given to write in belongs to it.
            os.chown(folder.base, -1, uid)
            folder.base.chmod(0o710)
            for name in ("out", "work"):
                os.chown(folder.base / name, uid, uid)
        yield folder
    finally:
        remove(folder.base)


def remove(folder: Path) -> None:
    """Remove a folder, also where a job took its own permissions away; what stays is swept at the next start."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _open_up(folder)
        for place, names, _ in os.walk(folder):  # top down: each is opened before it is entered
            for name in names:
                _open_up(Path(place, name))
        shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(0o700)


def sweep(parent: Path) -> None:
    """Kill the jobs and remove the folders that a client left here when it was killed itself."""
    mark = b"DOCKERCOMP_OUT=" + os.fsencode(parent) + b"/job-"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    for left in parent.glob("job-*"):
        remove(left)


def private_parent(path: Path) -> Path:
    """Make (or take up) a folder of ours that other users may pass through but not list; raises OSError."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"{path} belongs to someone else")
    path.chmod(0o711)
    return path
