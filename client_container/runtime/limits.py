"""Limits that jobs inherit, and the counters that tell whether memory ran out."""

from __future__ import annotations

import logging
import resource
from functools import lru_cache
from pathlib import Path

log = logging.getLogger(__name__)

OPEN_FILES = 4096
FILE_BYTES = 1024 * 1024 * 1024
PROCESSES = 1024

_CGROUP = Path("/sys/fs/cgroup")


def limit_this_process(*, processes: bool) -> None:
    """Lower this process's own rlimits: no core files, bounded descriptors and file size.

    Jobs inherit them, which needs no code between fork and exec (unsafe with threads). `processes` also bounds the
    number of processes: only sensible where jobs have a uid of their own, because the kernel counts by uid.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, FILE_BYTES)
    if processes:
        _lower(resource.RLIMIT_NPROC, PROCESSES)


def _lower(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (bound, bound))


def limit_process(pid: int, *, memory_mb: int | None, disk_mb: int | None) -> None:
    """Lower the limits of a job that was just started to what it asked for; None: as they are.

    Memory is what it allocates, each of its processes for itself; disk the size of any one file. Processes that it
    started in its very first moment are not bound.
    """
    for which, mib in ((resource.RLIMIT_DATA, memory_mb), (resource.RLIMIT_FSIZE, disk_mb)):
        if mib is None:
            continue
        try:
            hard = resource.prlimit(pid, which)[1]
            bound = mib * 2**20 if hard == resource.RLIM_INFINITY else min(mib * 2**20, hard)
            resource.prlimit(pid, which, (bound, bound))
        except ProcessLookupError:  # over already
            return
        except PermissionError:  # its user is another, and we are no full root
            log.debug("limits not set", extra={"pid": pid})
            return


def oom_kills() -> int | None:
    """How many processes of our cgroup the kernel killed for memory so far; None where it does not say."""
    path = _oom_file()
    return _oom_count(path) if path else None


@lru_cache(maxsize=1)
def _oom_file() -> Path | None:
    """Where the counter is: in our own cgroup (v2, v1), or at the root that a container sees."""
    files = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            files.append(_CGROUP / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(_CGROUP / "memory" / path.lstrip("/") / "memory.oom_control")
    files += [_CGROUP / "memory.events", _CGROUP / "memory" / "memory.oom_control"]
    return next((path for path in files if _oom_count(path) is not None), None)


def _oom_count(path: Path) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        pass
    return None


def memory_mb() -> int | None:
    """Memory this container may use, in MiB: its cgroup's limit, else the machine's; None where nobody says."""
    limits = [_machine_mb()]
    for path in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        try:
            limits.append(int(path.read_text()) >> 20)
        except (OSError, ValueError):  # not this version of cgroups, or "max"
            continue
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def _machine_mb() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) >> 10
    except (OSError, ValueError):
        pass
    return None
