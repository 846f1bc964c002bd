"""The process runtime: a job as a child process with limits, a clean environment and its own folder.

It is no sandbox: the program sees the machine as the user it runs as.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from client_container.allow_list import AllowList
from client_container.protocol import Chunk
from client_container.runtime import Execution, Halt, HostBroken, JobHalted, Standing
from client_container.runtime.child import Watch, reap_strays
from client_container.runtime.contract import (
    BadChunk,
    BadJob,
    command_line,
    encoded_argv,
    encoded_input,
    environment,
    tail,
)
from client_container.runtime.folders import JobFolder, job_folder, private_parent, sweep
from client_container.runtime.limits import oom_kills
from client_container.runtime.verdict import not_run, verdict

#: Under root, jobs run as this user and group, which no system hands out (never nobody's 65534).
JOB_UID = 729999
GRACE_S = 10.0  #: between TERM and KILL at the timeout

#: What a shell answers for a program it does not find, and for one it cannot run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class ProcessRuntime:
    """Executes one job at a time."""

    name = "process"

    def __init__(
        self,
        *,
        parent: Path,
        allow: AllowList,
        path: str,
        image: str | None = None,
        cpus: float = 1.0,
        uid: int | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._parent, self._allow, self._path, self._image = parent, allow, path, image
        self._cpus, self._uid, self._grace_s = cpus, uid, grace_s

    def execute(self, chunk: Chunk, halt: Halt) -> Execution:
        """Run the chunk's job to its end; raises JobHalted, HostBroken."""
        began, clock = datetime.now(timezone.utc), time.monotonic()
        facts = self._attempt(chunk, halt)
        if halt.is_set:
            raise JobHalted(chunk.id)
        duration = timedelta(seconds=time.monotonic() - clock)
        return Execution(started=began, ended=began + duration, runtime=self.name, image=self._image, **facts)

    def standing(self) -> Standing:
        """Jobs may always run."""
        return Standing()

    def close(self) -> None:
        """Remove the folder for jobs, if nothing is left in it."""
        with contextlib.suppress(OSError):
            self._parent.rmdir()

    def _attempt(self, chunk: Chunk, halt: Halt) -> dict[str, Any]:
        try:
            self._check_image(chunk)
            argv = command_line(chunk.job.action, chunk.input)
            self._check_program(chunk, argv)
            return self._run(chunk, argv, halt)
        except (BadJob, BadChunk) as error:
            return not_run(error)

    def _check_image(self, chunk: Chunk) -> None:
        wanted = chunk.job.image
        if wanted is not None and wanted != self._image:
            raise BadJob(
                f"The job wants the image {wanted}, and this container runs in {self._image or 'none'}."
            )

    def _check_program(self, chunk: Chunk, argv: Sequence[str]) -> None:
        if not argv:
            raise BadJob("The job has no action, and the process runtime has no image's own command to run.")
        if not self._allow.permits(argv):
            raise BadJob(f"This host does not allow the program {argv[0]!r} with these arguments.")
        name = self._allow.bad_env(chunk.job.env)
        if name is not None:
            raise BadJob(f"This host does not let a job set {name} for the programs it allows.")

    def _run(self, chunk: Chunk, argv: Sequence[str], halt: Halt) -> dict[str, Any]:
        encoded, data = encoded_argv(argv), encoded_input(chunk.input)
        kills = oom_kills()
        try:
            self._make_parent()
            with job_folder(self._parent, data, uid=self._uid) as folder:
                env = environment(chunk, path=self._path, cpus=self._cpus, places=folder.places())
                try:
                    process = self._start(encoded, env, folder)
                except OSError as error:
                    return _never_started(error, encoded[0])
                watch = Watch(process, halt, timeout_s=chunk.job.timeout_s, grace_s=self._grace_s)
                ending = watch.run()
        except OSError as error:
            raise HostBroken(f"This machine cannot run jobs: {error.strerror or error}.") from error
        finally:
            reap_strays()
        if ending.cause == "halted":
            raise JobHalted(chunk.id)
        out_of_memory = kills is not None and (oom_kills() or 0) > kills
        return verdict(
            chunk,
            cause=ending.cause or ("oom" if out_of_memory else None),
            exit_code=ending.exit_code,
            signal=ending.signal,
            cpu_s=ending.cpu_s,
            stdout=ending.stdout,
            stderr=ending.stderr,
        )

    def _make_parent(self) -> None:
        """Those who tidy temporary folders may have removed it since the start; raises OSError."""
        if not self._parent.exists():
            private_parent(self._parent)

    def _start(
        self, argv: Sequence[bytes], env: Mapping[bytes, bytes], folder: JobFolder
    ) -> subprocess.Popen[bytes]:
        with folder.chunk.open("rb") as stdin:
            return subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder.work,
                env=env,
                start_new_session=True,
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else [],
                umask=0o022,
            )


def _never_started(error: OSError, program: bytes) -> dict[str, Any]:
    """What a shell would say of a program that cannot be started; raises the error when the machine is at fault."""
    # Python names the program when exec failed, and the folder (or nothing) when it did not get that far.
    if error.filename not in (program, os.fsdecode(program)):
        raise error
    code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    sentence = f"{os.fsdecode(program)!r} cannot be run: {error.strerror}."
    return {"outcome": "failed", "exit_code": code, "stderr_tail": tail(b"", sentence)}


def prepare_parent(home: Path, *, uid: int | None) -> Path:
    """The folder that will hold this client's job folders, swept of an earlier client's; raises OSError.

    It lies in the home. Where jobs have a uid of their own it lies under the temporary folder instead, because
    that user may not be able to reach the home (/root, say).
    """
    if uid is None:
        parent = home / "jobs"
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    else:
        name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        parent = private_parent(Path(tempfile.gettempdir()) / f"dockercomp-jobs-{name}")
    sweep(parent)
    return parent
