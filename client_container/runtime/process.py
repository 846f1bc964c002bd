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
from client_container.launcher.files.collect import Collection, collect
from client_container.launcher.files.folders import opened
from client_container.launcher.files.slots import store_file
from client_container.protocol import Chunk
from client_container.runtime import Execution, GivenBack, Halt, HostBroken, JobHalted, Standing
from client_container.runtime.arrival import Supply
from client_container.runtime.bounds import LOOK_S, Bounds
from client_container.runtime.checkpoints import Checkpoints
from client_container.runtime.child import Ending, Watch, reap_strays
from client_container.runtime.contract import (
    BadChunk,
    BadJob,
    command_line,
    encoded_argv,
    encoded_input,
    environment,
    in_files,
    tail,
    text_for_fields,
    wants_fields,
)
from client_container.runtime.folders import JobFolder, job_folder, private_parent, sweep
from client_container.runtime.limits import oom_kills
from client_container.runtime.verdict import kept_files, not_run, verdict

#: Under root, jobs run as this user and group, which no system hands out (never nobody's 65534).
JOB_UID = 729999
GRACE_S = 10.0  #: between TERM and KILL at the timeout
OUT_BYTES = 2**30  #: of files that one chunk's program may leave, unless its job says how much disk it wants
CHECKPOINTS = "checkpoints"  #: beside the jobs' folders

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
        supply: Supply | None = None,
        outbox: Path | None = None,
    ) -> None:
        """`supply` brings files (None: chunks that have any are not run), `outbox` takes those that jobs made."""
        self._parent, self._allow, self._path, self._image = parent, allow, path, image
        self._cpus, self._uid, self._grace_s = cpus, uid, grace_s
        self._supply, self._outbox = supply, outbox or parent / "outbox"
        self._checkpoints = Checkpoints(parent / CHECKPOINTS, uid=uid)

    def execute(self, chunk: Chunk, halt: Halt) -> Execution:
        """Run the chunk's job to its end; raises JobHalted, HostBroken."""
        began, clock = datetime.now(timezone.utc), time.monotonic()
        try:
            facts = self._attempt(chunk, halt)
        except (JobHalted, GivenBack, HostBroken):
            self._checkpoints.leave(chunk)
            raise
        if halt.is_set:
            raise JobHalted(chunk.id)
        duration = timedelta(seconds=time.monotonic() - clock)
        return Execution(started=began, ended=began + duration, runtime=self.name, image=self._image, **facts)

    def reported(self, chunk: Chunk) -> None:
        """Its checkpoint is not needed any more."""
        self._checkpoints.forget(chunk)

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
            if chunk.input_file is None or not wants_fields(chunk.job.action):
                self._command(chunk, chunk.input)  # what cannot be run is not worth fetching anything for
            return self._run(chunk, halt)
        except (BadJob, BadChunk) as error:
            return not_run(error)

    def _command(self, chunk: Chunk, text: str) -> list[bytes]:
        """The command line of the chunk with this input; raises BadJob, BadChunk."""
        argv = command_line(chunk.job.action, text)
        self._check_program(chunk, argv)
        return encoded_argv(argv)

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

    def _run(self, chunk: Chunk, halt: Halt) -> dict[str, Any]:
        kills = oom_kills()
        try:
            self._make_parent()
            with job_folder(self._parent, self._checkpoints.place(chunk), uid=self._uid) as folder:
                encoded = self._fill(folder, chunk, halt)
                env = environment(chunk, path=self._path, cpus=self._share(chunk), places=folder.places())
                bounds = self._bounds(chunk, folder)
                command = bounds.command(encoded)
                try:
                    process = self._start(command, env, folder)
                except OSError as error:
                    return _never_started(error, command[0])
                ending = self._watch(chunk, process, halt, bounds)
                out_of_memory = kills is not None and (oom_kills() or 0) > kills
                return self._judged(chunk, ending, folder, bounds, out_of_memory=out_of_memory)
        except OSError as error:
            raise HostBroken(f"This machine cannot run jobs: {error.strerror or error}.") from error
        finally:
            reap_strays()

    def _bounds(self, chunk: Chunk, folder: JobFolder) -> Bounds:
        return Bounds(
            memory_mb=chunk.job.memory_mb,
            disk_mb=chunk.job.disk_mb,
            places=(folder.out, folder.work, folder.checkpoint),
            uid=self._uid,
        )

    def _watch(self, chunk: Chunk, process: subprocess.Popen[bytes], halt: Halt, bounds: Bounds) -> Ending:
        """Have it run to its end; raises JobHalted."""
        bounds.begin(process.pid)
        ending = Watch(
            process,
            halt,
            timeout_s=chunk.job.timeout_s,
            grace_s=self._grace_s,
            look=(lambda: bounds.look(process.pid)) if bounds.named else None,
            look_s=LOOK_S,
        ).run()
        if ending.cause == "halted":
            raise JobHalted(chunk.id)
        return ending

    def _fill(self, folder: JobFolder, chunk: Chunk, halt: Halt) -> list[bytes]:
        """Lay out what the program reads; answers its command line. Raises BadJob, BadChunk, GivenBack, OSError."""
        if chunk.input_file is None:
            folder.chunk.write_bytes(encoded_input(chunk.input))
            folder.chunk.chmod(0o444)
        if chunk.input_file is not None or in_files(chunk):
            if self._supply is None:
                raise BadJob("This client fetches no files.")
            self._supply(chunk, folder.inside, halt)
        text = chunk.input
        if chunk.input_file is not None and wants_fields(chunk.job.action):
            text = text_for_fields(folder.chunk)
        return self._command(chunk, text)

    def _share(self, chunk: Chunk) -> float:
        """Processors that the program may count on."""
        return self._cpus if chunk.job.cpus is None else min(self._cpus, chunk.job.cpus)

    def _judged(
        self, chunk: Chunk, ending: Ending, folder: JobFolder, bounds: Bounds, *, out_of_memory: bool
    ) -> dict[str, Any]:
        """The fields of an Execution, with the files that the job wanted kept."""
        cause = ending.cause or ("oom" if out_of_memory else bounds.cause(ending))
        found = Collection()
        if cause is None and ending.exit_code == 0 and chunk.job.outputs:
            found = self._collect(chunk, folder)
        facts = verdict(
            chunk,
            cause=cause,
            exit_code=ending.exit_code,
            signal=ending.signal,
            cpu_s=ending.cpu_s,
            stdout=ending.stdout,
            stderr=ending.stderr,
            note=" ".join(filter(None, (bounds.note(cause), found.note))),
        )
        return facts | kept_files(found.files, self._outbox, outcome=facts["outcome"])

    def _collect(self, chunk: Chunk, folder: JobFolder) -> Collection:
        """Take the files out of /out. What escaped us may still write there: each is hashed as it is copied."""
        self._outbox.mkdir(parents=True, exist_ok=True, mode=0o700)
        most = OUT_BYTES if chunk.job.disk_mb is None else chunk.job.disk_mb * 2**20

        def store(descriptor: int, room: int) -> tuple[str, int]:
            return store_file(self._outbox, descriptor, most=room)

        with opened(folder.out) as out:
            return collect(out, store, most_bytes=most, patterns=chunk.job.outputs)

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
    Checkpoints(parent / CHECKPOINTS, uid=uid).sweep()
    return parent
