"""Files without a name that processes still hold open: disk that no folder shows.

What is held in other ways (a mapping alone, a descriptor on its way through a socket) is not seen; that is bounded
by the fixed size of the file system that jobs write to.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

MOST_DESCRIPTORS = 4096  #: looked at in one go


def hidden_bytes(processes: Iterable[int], device: int, *, proc: Path = Path("/proc")) -> int:
    """Bytes on disk of the nameless regular files on this device that the processes have open."""
    found: dict[int, int] = {}
    left = MOST_DESCRIPTORS
    for pid in processes:
        with contextlib.suppress(OSError), os.scandir(proc / str(pid) / "fd") as descriptors:
            for descriptor in descriptors:
                left -= 1
                if left < 0:
                    return sum(found.values())
                with contextlib.suppress(OSError):
                    # The kernel leads straight to the open file; no path of the job's is resolved.
                    file = descriptor.stat()
                    if stat.S_ISREG(file.st_mode) and file.st_nlink == 0 and file.st_dev == device:
                        found[file.st_ino] = file.st_blocks * 512
    return sum(found.values())
