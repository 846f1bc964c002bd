"""A job's own limits without a container: set before its program begins, watched while it runs. No privilege needed.

What the kernel enforces of one process: its memory (RLIMIT_DATA: all that it may write to and shares with nobody) and
the size of any one file (RLIMIT_FSIZE). They are set by the job's own process before it becomes the program, for nobody
may change those of another user's process without a privilege, and so that nothing that the program starts is without
them. What all processes of the job have together is added up twice a second; who passes a limit is killed.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from client_container.launcher.files.folders import Usage, measure, opened
from client_container.runtime.child import Ending
from client_container.runtime.limits import limit_process

log = logging.getLogger(__name__)

LOOK_S = 0.5  #: between two looks at what a job takes
MOST_INODES = 100_000  #: files that are looked at
NEARLY = 0.9  #: of its memory: a program that had so much when it failed most likely got no more
MIB = 2**20

#: What languages say of an allocation that was refused.
_NO_MEMORY = re.compile(
    rb"MemoryError|bad_alloc|OutOfMemory|[Oo]ut of memory|[Cc]annot allocate memory|failed to allocate memory"
    rb"|[Nn]ot enough memory|memory exhausted"
)

#: Limits itself and becomes the program. The signals that this interpreter ignores are as they were, and so is the
#: environment: /proc has it as it was given, whatever the interpreter made of it.
_BECOME = """
import os, resource, signal, sys
argv = [os.fsencode(one) for one in sys.argv[3:]]
with open("/proc/self/environ", "rb") as given:
    env = dict(one.split(b"=", 1) for one in given.read().split(b"\\0") if b"=" in one)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
for which, most in ((resource.RLIMIT_DATA, sys.argv[1]), (resource.RLIMIT_FSIZE, sys.argv[2])):
    if most != "-":
        hard = resource.getrlimit(which)[1]
        bound = int(most) if hard == resource.RLIM_INFINITY else min(int(most), hard)
        resource.setrlimit(which, (bound, bound))
try:
    os.execvpe(argv[0], argv, env)
except OSError as error:
    os.write(2, b"%r cannot be run: %s.\\n" % (sys.argv[3], error.strerror.encode()))
    os._exit(127 if isinstance(error, FileNotFoundError) else 126)
"""


class Bounds:
    """The limits of one execution; None: the job names none, and nothing is looked at."""

    def __init__(
        self,
        *,
        memory_mb: int | None,
        disk_mb: int | None,
        places: Sequence[Path],
        uid: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places`: the folders that the program may write in, which is what counts as its disk."""
        self._memory = None if memory_mb is None else memory_mb * MIB
        self._disk = None if disk_mb is None else disk_mb * MIB
        self._places, self._uid, self._clock = places, uid, clock
        self._next = 0.0
        self._taken = 0  #: bytes of memory, as last seen

    @property
    def named(self) -> bool:
        """Whether there is anything to look after."""
        return self._memory is not None or self._disk is not None

    def command(self, argv: Sequence[bytes]) -> list[bytes]:
        """The command line that limits itself and then becomes this one, where that can be had here."""
        python = _python(self._uid) if self.named else None
        if python is None:
            return list(argv)
        most = ["-" if one is None else str(one) for one in (self._memory, self._disk)]
        return [os.fsencode(one) for one in (python, "-I", "-S", "-c", _BECOME, *most)] + list(argv)

    def begin(self, pid: int) -> None:
        """The process is there: where it could not limit itself, it is done now, as far as the kernel lets us."""
        if self.named and _python(self._uid) is None:
            megabytes = [None if one is None else one // MIB for one in (self._memory, self._disk)]
            limit_process(pid, memory_mb=megabytes[0], disk_mb=megabytes[1])

    def look(self, pid: int) -> str | None:
        """Why the job that this process leads has to end now (oom, disk_limit), or None."""
        began = self._clock()
        if not self.named or began < self._next:
            return None
        found = None
        if self._memory is not None:
            self._taken = memory_of(pid, more_than=self._memory)
            found = "oom" if self._taken > self._memory else None
        if self._disk is not None and self._written() > self._disk:
            found = "disk_limit"
        # What takes long to look at must not keep us busy with looking.
        self._next = self._clock() + max(LOOK_S, 5 * (self._clock() - began))
        return found

    def cause(self, ending: Ending) -> str | None:
        """Which limit a program met that ended by itself, as far as that can be told from outside."""
        if ending.signal == signal.SIGXFSZ:
            return "disk_limit"
        failed = ending.exit_code != 0
        if self._disk is not None:
            written = self._written()
            if written > self._disk or (failed and written >= self._disk):
                return "disk_limit"
        if self._memory is not None and failed:
            nearly_all = self._taken >= NEARLY * self._memory
            return "oom" if nearly_all or _NO_MEMORY.search(ending.stderr) else None
        return None

    def note(self, cause: str | None) -> str:
        """What goes with that cause, as a sentence."""
        if cause == "oom" and self._memory is not None:
            return f"The job may have {self._memory // MIB} MiB of memory."
        if cause == "disk_limit" and self._disk is not None:
            return f"The program wrote more than the {self._disk // MIB} MiB that the job may write."
        return "The program wrote a file bigger than all it may write." if cause == "disk_limit" else ""

    def _written(self) -> int:
        return sum(_usage(place).bytes for place in self._places)


def memory_of(session: int, *, more_than: int) -> int:
    """Bytes of memory of all processes of a session: what is shared counts for each unless that is `more_than`.

    Then it is counted exactly, once. What the kernel does not tell us about (a process of another user, for want of
    a privilege) counts as much as the largest process that it tells about.
    """
    processes = list(_of_session(session))
    rough = [_kilobytes(one / "status", ("RssAnon", "RssShmem")) for one in processes]
    if sum(rough) * 1024 <= more_than:
        return sum(rough) * 1024
    try:
        return 1024 * sum(_exactly(one) for one in processes)
    except PermissionError:
        return max(rough, default=0) * 1024


def _exactly(process: Path) -> int:
    """Kilobytes, what is shared by n processes as one nth of it; raises PermissionError."""
    try:
        return _kilobytes(process / "smaps_rollup", ("Pss_Anon", "Pss_Shmem"), strict=True)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _of_session(session: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # over
            continue
        if len(fields) > 3 and int(fields[3]) == session:
            yield process


def _kilobytes(file: Path, names: Sequence[str], *, strict: bool = False) -> int:
    """The sum of these lines `Name:   12 kB`; nothing of a process that is over."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        if strict:
            raise
        return 0
    found = (re.search(rf"(?m)^{name}:\s+([0-9]+) kB$", text) for name in names)
    return sum(int(one[1]) for one in found if one)


def _usage(place: Path) -> Usage:
    try:
        with opened(place) as folder:
            return measure(folder, most_inodes=MOST_INODES)
    except OSError:  # its program took it away, or shut us out
        return Usage()


@lru_cache(maxsize=4)
def _python(uid: int | None) -> str | None:
    """An interpreter that jobs can start: ours may lie where their user does not come. None: there is none."""
    for found in dict.fromkeys((os.path.realpath(sys.executable), "/usr/bin/python3")):
        try:
            done = subprocess.run(
                [found, "-I", "-S", "-c", "import resource, signal"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return found
    log.warning("limits of jobs are set a moment late: no interpreter that they can start")
    return None
