"""Control groups: what the kernel says about a job's processes, and the one group that holds all jobs of this host.

All job containers, of all instances, have the same parent group, so that the volunteer's totals hold whatever the
containers are given one by one. Its files are written where this process may; where not, `Totals.problem` says so.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from client_container.launcher.jobs.engine import Cgroups

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
PARENT = "dockercomp"
TOTALS_S = 60.0  #: they are looked after this often
_PERIOD_US = 100_000


@dataclass(frozen=True)
class JobGroup:
    """The control group of one container, by the files of its controllers."""

    folders: Mapping[str, Path]  #: by controller; all the same under version 2

    def processes(self) -> list[int]:
        """Ids of the processes in it; raises OSError when the group is gone."""
        return [int(line) for line in (self.folders["pids"] / "cgroup.procs").read_text().split()]

    def tasks(self) -> int:
        """How many processes and threads it has at this instant, those that ended but were not waited for included.

        The kernel counts before a new one can run, so that none can hide from it. Raises OSError.
        """
        return int((self.folders["pids"] / "pids.current").read_text())

    def cpu_s(self) -> float:
        """Processor seconds used so far by all that ever was in it; 0 where the kernel does not say."""
        try:
            if (usage := self.folders["cpuacct"] / "cpuacct.usage").exists():
                return int(usage.read_text()) / 1e9
            return _entry(self.folders["cpuacct"] / "cpu.stat", "usage_usec") / 1e6
        except (OSError, ValueError, KeyError):
            return 0.0

    def oom_kills(self) -> int:
        """How many processes of it the kernel killed for memory so far; 0 where it does not say."""
        for name in ("memory.events", "memory.oom_control"):
            try:
                return _entry(self.folders["memory"] / name, "oom_kill")
            except (OSError, ValueError, KeyError):
                continue
        return 0


def group_of(pid: int, *, root: Path = ROOT, proc: Path = Path("/proc")) -> JobGroup:
    """The control group of a process on this machine; raises OSError where it cannot be found."""
    folders: dict[str, Path] = {}
    unified: Path | None = None
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            unified = root / path.lstrip("/")
            continue
        for controller in controllers.split(","):
            folders[controller] = _first_there(root / controllers, root / controller) / path.lstrip("/")
    if unified is not None:
        for controller in ("pids", "memory", "cpuacct"):
            folders.setdefault(controller, unified)
    for needed in ("pids", "memory", "cpuacct"):
        if needed not in folders:
            raise FileNotFoundError(f"process {pid} has no control group for {needed}")
    if not (folders["pids"] / "pids.current").exists():
        raise FileNotFoundError(f"the control group of process {pid} cannot be read")
    return JobGroup(folders)


def parent_name(cgroups: Cgroups) -> str:
    """The parent of all job containers, as the engine wants it named."""
    return f"{PARENT}.slice" if cgroups.driver == "systemd" else f"/{PARENT}"


def remove_parents(root: Path = ROOT) -> None:
    """Remove the parent group of all jobs where it is empty; those of another launcher's jobs keep it."""
    for top in (root, *sorted(root.glob("*"))):
        if not top.is_symlink():
            with contextlib.suppress(OSError):
                (top / PARENT).rmdir()


class Totals:
    """Keeps the parent group at the volunteer's totals."""

    def __init__(self, cgroups: Cgroups, *, root: Path = ROOT) -> None:
        self._cgroups, self._root = cgroups, root
        self.problem = ""  #: why the totals are not (all) in force; a sentence

    def hold(self, memory: int) -> bool:
        """Whether the parent group still has this much memory: a launcher that leaves takes an empty one along, and the
        engine makes another. Systemd's stays.
        """
        if self._cgroups.driver == "systemd":
            return True
        files = {2: Path(PARENT) / "memory.max", 1: Path("memory") / PARENT / "memory.limit_in_bytes"}
        try:
            return (self._root / files[self._cgroups.version]).read_text().strip() == str(_pages(memory))
        except OSError:
            return False

    def ensure(self, *, cpus: float, memory: int) -> bool:
        """Set the totals (processors, bytes) unless they are; False, with `problem` set, where that cannot be."""
        try:
            if self._cgroups.driver == "systemd":
                self._set_slice(cpus=cpus, memory=memory)
            else:
                self._write_files(self._root, PARENT, cpus=cpus, memory=memory)
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"The totals for all jobs together could not be set ({_reason(error)})."
            if problem != self.problem:
                log.warning("totals not set", extra={"reason": _reason(error)})
            self.problem = problem
            return False
        self.problem = ""
        return True

    def _set_slice(self, *, cpus: float, memory: int) -> None:
        """Systemd owns its groups: it is told; where it does not listen to us, the files are written."""
        slice_name = f"{PARENT}.slice"
        if shutil.which("systemctl"):
            limits = [f"CPUQuota={round(cpus * 100)}%", f"MemoryMax={memory}", "MemorySwapMax=0"]
            command = ["systemctl", "set-property", "--runtime", "--no-ask-password", slice_name, *limits]
            if subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0:
                return
        self._write_files(self._root, slice_name, cpus=cpus, memory=memory)

    def _write_files(self, root: Path, name: str, *, cpus: float, memory: int) -> None:
        if self._cgroups.version == 2:
            group = _made(root / name)
            _set(group / "cpu.max", f"{round(cpus * _PERIOD_US)} {_PERIOD_US}")
            _set(group / "memory.max", str(_pages(memory)))
            return
        cpu = _made(_first_there(root / "cpu", root / "cpu,cpuacct") / name)
        _set(cpu / "cpu.cfs_period_us", str(_PERIOD_US))
        _set(cpu / "cpu.cfs_quota_us", str(round(cpus * _PERIOD_US)))
        group = _made(root / "memory" / name)
        _set(group / "memory.limit_in_bytes", str(_pages(memory)))


def _pages(memory: int) -> int:
    return memory // 4096 * 4096  # as the kernel counts


class KeptTotals:
    """Totals that are set again when they change, and now and then in any case: others may have touched them."""

    def __init__(
        self, totals: Totals, wanted: Callable[[], tuple[float, int]], clock: Callable[[], float]
    ) -> None:
        """`wanted`: processors and bytes."""
        self._totals, self._wanted, self._clock = totals, wanted, clock
        self._at = float("-inf")
        self._set: tuple[float, int] | None = None

    @property
    def problem(self) -> str:
        """Why they are not in force; empty when they are."""
        return self._totals.problem

    def ensure(self) -> None:
        """Set them if it is time."""
        wanted = self._wanted()
        cpus, memory = wanted
        if self._clock() - self._at > TOTALS_S or self._set != wanted or not self._totals.hold(memory):
            self._totals.ensure(cpus=cpus, memory=memory)
            self._at, self._set = self._clock(), wanted


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _set(file: Path, value: str) -> None:
    """Write it unless it is so already: lowering a limit makes the kernel look for memory to take back."""
    if file.read_text().strip() != value:
        file.write_text(value)


def _first_there(*paths: Path) -> Path:
    return next((path for path in paths if path.exists()), paths[-1])


def _entry(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise KeyError(name)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
