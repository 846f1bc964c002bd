"""A job container that is kept for the next chunk of the same task, if nothing of the last chunk is left in it.

That is proved, not assumed. The container's own two processes (the engine's init and the pause program) have a uid
that no job has, so a job can neither stop nor trace them; they start nothing. When the kernel's count of tasks in the
container's group is two, no process of the chunk exists any more and none can come to be. Only then its traces are
removed: /tmp, /dev/shm and /out, the only places where a job can write that outlive its processes (System V objects
and message queues cannot be made, the root is read-only, and /checkpoint belongs to the chunk). Whatever is not as it
should be: the container is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client_container.launcher.errors import EngineError
from client_container.launcher.files import folders
from client_container.launcher.files.folders import Usage
from client_container.launcher.files.open_files import hidden_bytes
from client_container.launcher.jobs.cgroups import JobGroup, group_of
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.sandbox import OWN_TASKS, SHM, TMP, Sandbox, container_config

log = logging.getLogger(__name__)

OPEN_S = 10.0  #: within which a new container must have its two processes
SETTLE_S = 0.2  #: what the program started may take this long to end after it
MOST_KILLS = 100  #: rounds of killing what makes new processes
MOST_TRACES = 10_000  #: entries; removing a whole container is quicker than removing more


@dataclass(eq=False)
class Cell:
    """One living job container."""

    id: str
    name: str
    sandbox: Sandbox
    use: str  #: as sandbox.same_use gives it
    group: JobGroup
    init: int  #: process id of its init, on this machine
    own: frozenset[int]  #: its two own processes

    @property
    def folder(self) -> Path:
        """Holds in/, out/ and checkpoint/."""
        return self.sandbox.folder

    def usage(self, *, most_inodes: int) -> Usage:
        """What the job has in /out and /checkpoint, nameless files that it holds open included; raises OSError."""
        total = Usage()
        for name in ("out", "checkpoint"):
            with folders.opened(self.folder / name) as folder:
                total += folders.measure(folder, most_inodes=most_inodes)
                device = os.fstat(folder).st_dev
        with contextlib.suppress(OSError):  # the group ended with the container
            total += Usage(bytes=hidden_bytes(set(self.group.processes()) - self.own, device))
        return total

    def signal_job(self, number: signal.Signals) -> None:
        """Send a signal to every process that the job has now."""
        with contextlib.suppress(OSError):
            for pid in set(self.group.processes()) - self.own:
                self._signal(pid, number)

    def kill_job(self) -> None:
        """Kill all that the job has, without the engine; again and again, while it makes new processes."""
        with contextlib.suppress(OSError):
            for _ in range(MOST_KILLS):
                if self.group.tasks() == OWN_TASKS:
                    return
                self.signal_job(signal.SIGKILL)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """By descriptor: between two looks the number may have become somebody else's."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if pid in self.group.processes():
                signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(process)

    def empty_of_jobs(self, *, settle_s: float = SETTLE_S) -> bool:
        """Whether nothing but its own two processes exists in it, waiting a moment for what is just ending."""
        ends = time.monotonic() + settle_s
        try:
            while self.group.tasks() != OWN_TASKS:
                if time.monotonic() > ends:
                    return False
                time.sleep(0.002)
            return set(self.group.processes()) == self.own
        except OSError:
            return False

    def clear_traces(self) -> bool:
        """Empty /tmp, /dev/shm and /out; False in any doubt. Only while `empty_of_jobs`."""
        try:
            with contextlib.ExitStack() as stack:
                root = os.open(f"/proc/{self.init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                places = [stack.enter_context(folders.opened(self.folder / "out"))]
                for path in (TMP, SHM):
                    inside = root
                    for part in path.strip("/").split("/"):  # step by step: an image may have links there
                        inside = stack.enter_context(folders.opened(part, within=inside))
                    places.append(inside)
                return all(folders.empty(place, most=MOST_TRACES) for place in places)
        except OSError as error:
            log.info("container not kept", extra={"container": self.id[:12], "reason": error.strerror})
            return False


def open_cell(
    engine: JobEngine, sandbox: Sandbox, name: str, use: str, *, clock: Callable[[], float] = time.monotonic
) -> Cell:
    """Make a job container and wait until it stands; raises EngineError, OSError."""
    made = engine.create(container_config(sandbox), name)
    try:
        ends = clock() + OPEN_S
        while True:
            state = engine.state(made)
            if not state.running:
                raise EngineError("A job container ended as soon as it was started.")
            group = group_of(state.pid)
            if group.tasks() == OWN_TASKS:
                own = frozenset(group.processes())
                return Cell(made, name, sandbox, use, group, state.pid, own)
            if clock() > ends:
                raise EngineError("A job container did not come up.")
            time.sleep(0.002)
    except BaseException:
        with contextlib.suppress(EngineError):
            engine.remove(made)
        raise
