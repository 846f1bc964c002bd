"""One job from beginning to end: its container, its files, its process, and what is kept afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from client_container.launcher.errors import EngineError, LauncherError
from client_container.launcher.files.cache import Cache
from client_container.launcher.files.collect import PROGRESS, Collection, collect
from client_container.launcher.files.folders import open_plain_file, opened
from client_container.launcher.files.slots import BadFile, Slots
from client_container.launcher.jobs.control import Control
from client_container.launcher.jobs.engine import CALL_S, ImageFacts, JobEngine
from client_container.launcher.jobs.execution import GRACE_S, LINGER_S, Execution, Outcome, Task
from client_container.launcher.jobs.inputs import Inbox, fill_in
from client_container.launcher.jobs.manifest import Allowance
from client_container.launcher.jobs.places import Places
from client_container.launcher.jobs.sandbox import CHECKPOINT, IN, OUT, TMP, Sandbox, same_use
from client_container.launcher.jobs.startable import require_startable, require_workdir
from client_container.launcher.jobs.story import Story
from client_container.launcher.jobs.warm import Cell, open_cell
from client_container.launcher.line import events
from client_container.launcher.line.events import End
from client_container.launcher.line.wire import Refusal, Run
from client_container.protocol import Chunk
from client_container.protocol import Job as ChunksJob
from client_container.runtime.contract import (
    CHUNK_FILE,
    BadChunk,
    BadJob,
    command_line,
    encoded_argv,
    encoded_input,
    environment,
    text_for_fields,
    wants_fields,
)

log = logging.getLogger(__name__)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Endings without a result: the chunk will be tried again, perhaps here, and goes on from its checkpoint.
WITHOUT_RESULT = frozenset({"given_back", "killed", "engine", "closing"})


@dataclass(eq=False)
class Job:
    """One accepted request: what runs, or ran, in a slot."""

    slot: int
    request: Run
    allowance: Allowance
    image: str  #: id
    since: datetime
    story: Story
    control: Control = field(default_factory=Control)
    over: threading.Event = field(default_factory=threading.Event)  #: the slot is free again

    @property
    def checkpoint(self) -> str:
        """What a checkpoint belongs to: the chunk, and its run once it is run anew."""
        chunk = self.request.chunk
        return chunk.id if chunk.run == 0 else f"{chunk.id}\0{chunk.run}"

    @property
    def running(self) -> bool:
        """Whether its end has not been told yet."""
        return not self.story.finished


@dataclass(eq=False)
class Bay:
    """What a slot has: the job that came last, and the container that is kept for the next."""

    slot: int
    entering: threading.Lock = field(default_factory=threading.Lock)  #: requests of one slot come one by one
    job: Job | None = None
    cell: Cell | None = None
    token: str = ""  #: by which container and folder are named, from before they are made until they are gone
    idle_since: float = 0.0  #: on the jobs' clock


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is the same for all jobs of an instance."""

    engine: JobEngine
    slots: Slots
    cache: Cache
    places: Places
    pause: Path  #: the pause program's file
    labels: Mapping[str, str]
    first_uid: int
    name: str  #: with which the names of the containers begin
    cgroup_parent: str = ""
    runtime: str | None = None
    grace_s: float = GRACE_S
    linger_s: float = LINGER_S
    startable: set[str] = field(default_factory=set)  #: ids of images that were looked at

    def container_name(self, slot: int, token: str) -> str:
        """Name of a job container."""
        return f"{self.name}-job-{slot}-{token[:8]}"

    def folder_name(self, slot: int, token: str) -> str:
        """Name of a job container's folder."""
        return f"{slot}-{token}"


class Performance:
    """Runs one job in its bay; used once, in a thread of its own."""

    def __init__(self, around: Surroundings, job: Job, bay: Bay) -> None:
        self._around, self._job, self._bay = around, job, bay
        self._engine = around.engine
        self.bytes_in = self.bytes_out = 0

    def run(self) -> Outcome:
        """Run the job to its end and tell it; afterwards the bay holds a clean container, or none.

        Raises Refusal when the job cannot be run here; nothing has been told then. Everything else that goes wrong
        is told, and answered, as the cause `engine`.
        """
        try:
            facts = self._engine.image(self._job.image)
            task = self._task(facts)
            cell = self._open(facts)
            outcome = self._execute(cell, task)
        except (EngineError, OSError) as error:
            outcome = Outcome(cause=self._job.control.stop_cause or "engine", note=_reason(error))
        except BadFile as error:
            self.discard(keep_checkpoint=True)
            raise Refusal("bad_request", str(error)) from error
        except BaseException:
            self.discard(keep_checkpoint=True)
            raise
        return self._finish(outcome)

    def discard(self, *, keep_checkpoint: bool, within: float = CALL_S) -> bool:
        """Kill and remove the bay's container and its folder; False when the engine did not (it is swept later)."""
        bay = self._bay
        removed = self._remove_container(within)
        if removed and bay.token:
            folder = self._around.places.folder(self._around.folder_name(bay.slot, bay.token))
            self._around.places.remove(folder, keep_checkpoint=keep_checkpoint)
        bay.cell, bay.token = None, ""
        return removed

    def _task(self, facts: ImageFacts) -> Task:
        """What is to be executed; raises Refusal for what no container could run."""
        if facts.volumes:
            raise Refusal(
                "not_allowed",
                f"The image declares a VOLUME ({facts.volumes[0]}), for which jobs have no room.",
            )
        require_workdir(facts.workdir)
        chunk = _as_chunk(self._job.request)
        by_fields = self._job.request.chunk.input_file is not None and wants_fields(chunk.job.action)
        places = {
            "HOME": TMP,
            "TMPDIR": TMP,
            "DOCKERCOMP_IN": IN,
            "DOCKERCOMP_OUT": OUT,
            "DOCKERCOMP_CHECKPOINT": CHECKPOINT,
        }
        allowance = self._job.allowance
        try:
            # What is filled in from an input that is a file is filled in once that lies there.
            argv = (
                list(chunk.job.action) if by_fields else _argv(chunk.job.action, chunk.input, facts.command)
            )
            env = environment(chunk, path=facts.path or DEFAULT_PATH, cpus=allowance.cpus, places=places)
            encoded_input(chunk.input)
        except (BadJob, BadChunk) as error:
            raise Refusal("bad_request", str(error)) from error
        return Task(
            argv=argv,
            env={name.decode(): value.decode() for name, value in env.items()},
            timeout_s=allowance.timeout_s,
            disk=allowance.disk,
        )

    def _open(self, facts: ImageFacts) -> Cell:
        """The bay's container if it may be used for this chunk, else a new one."""
        bay, job, around = self._bay, self._job, self._around
        chunk = job.checkpoint
        name = around.folder_name(job.slot, job.request.token)
        sandbox = Sandbox(
            slot=job.slot,
            image=facts.id,
            allowance=job.allowance,
            first_uid=around.first_uid,
            labels=around.labels,
            folder=around.places.folder(name),
            pause=around.pause,
            cgroup_parent=around.cgroup_parent,
            runtime=around.runtime,
        )
        use = same_use(sandbox, job.request.manifest)
        cell = bay.cell
        if cell and cell.use == use and not around.places.has_checkpoint(chunk) and self._stands(cell):
            around.places.assign(cell.folder, chunk)
            return cell
        self.discard(keep_checkpoint=False)
        bay.token = job.request.token
        around.places.make(name, chunk, uid=sandbox.uid)
        container = around.container_name(job.slot, job.request.token)
        if facts.id not in around.startable:
            require_startable(self._engine, facts.id, container, around.labels)
            around.startable.add(facts.id)
        bay.cell = open_cell(self._engine, sandbox, container, use)
        return bay.cell

    def _stands(self, cell: Cell) -> bool:
        return cell.empty_of_jobs() and self._engine.state(cell.id).running

    def _execute(self, cell: Cell, task: Task) -> Outcome:
        job = self._job
        stdin, argv = self._fill_in(cell), task.argv
        if job.request.chunk.input_file is not None and wants_fields(job.request.manifest.action):
            argv = self._argv_by_fields(stdin)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        job.story.start(events.started(container=cell.id[:12], image=job.image, at=now))
        execution = Execution(
            self._engine,
            cell,
            job.story,
            job.control,
            grace_s=self._around.grace_s,
            linger_s=self._around.linger_s,
        )
        return execution.run(replace(task, argv=argv, stdin=stdin, disk=max(0, task.disk - self.bytes_in)))

    def _fill_in(self, cell: Cell) -> Path:
        """Lay out what the program reads; answers where its input lies. Raises Refusal, BadFile, OSError."""
        job, around = self._job, self._around
        inbox = Inbox(
            cache=around.cache, slots=around.slots, slot=job.slot, project=job.request.manifest.project
        )
        chunk = job.request.chunk
        data = chunk.input.encode() if chunk.input_file is None else chunk.input_file
        self.bytes_in = fill_in(cell.folder, inbox, data, job.request.files, most=job.allowance.disk)
        around.cache.release(job.slot)
        return cell.folder / "in" / CHUNK_FILE

    def _argv_by_fields(self, stdin: Path) -> list[str]:
        try:
            return _argv(self._job.request.manifest.action, text_for_fields(stdin), ())
        except (BadJob, BadChunk) as error:
            raise Refusal("bad_request", str(error)) from error

    def _finish(self, outcome: Outcome) -> Outcome:
        """Collect what may be collected, tell the end, and clear up. Nothing runs when the end is told."""
        cell = self._bay.cell
        kept = cell is not None and outcome.clean and cell.empty_of_jobs()
        if not kept and not self._remove_container() and outcome.clean:
            outcome = Outcome(cause="engine", note="The Docker engine did not remove the job's container.")
        found = Collection()
        if cell is not None and outcome.clean:
            try:
                found = self._collect(cell)
            except OSError as error:
                outcome = replace(outcome, cause="engine", note=_reason(error))
                kept = False
        self._tell_end(outcome, found)
        if not (kept and self._clear(cell)):
            self.discard(keep_checkpoint=outcome.cause in WITHOUT_RESULT)
        return outcome

    def _clear(self, cell: Cell | None) -> bool:
        if cell is None or not cell.clear_traces():
            return False
        try:
            self._around.places.forget_checkpoint(cell.folder)
        except OSError:
            return False
        return True

    def _collect(self, cell: Cell) -> Collection:
        def store(descriptor: int, most: int) -> tuple[str, int]:
            return self._around.slots.store_file(self._job.slot, descriptor, most=most)

        with opened(cell.folder / "out") as out:
            found = collect(
                out,
                store,
                most_bytes=self._job.allowance.disk,
                patterns=self._job.request.manifest.outputs,
            )
        self.bytes_out = sum(file.bytes for file in found.files)
        return found

    def _tell_end(self, outcome: Outcome, found: Collection) -> None:
        story = self._job.story
        self.bytes_out += story.stdout_bytes
        if outcome.cause == "closing":
            story.drop()
            return
        end = End(
            cause=outcome.cause,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            cpu_s=outcome.cpu_s,
            ran_s=outcome.ran_s,
            image=self._job.image,
            files=found.files,
            note=" ".join(filter(None, (outcome.note, found.note))),
        )
        story.finish(end.event())

    def _remove_container(self, within: float = CALL_S) -> bool:
        cell = self._bay.cell
        if cell is None:
            return True
        try:
            self._engine.remove(cell.id, within=within)
        except EngineError as error:
            # The engine is away: then nobody but us ends what runs in it.
            cell.kill_job()
            log.warning("job container stays", extra={"container": cell.id[:12], "reason": str(error)})
            return False
        return True


def read_progress(folder: Path) -> float | None:
    """How far a running job says it is (0..1); None when it says nothing that makes sense."""
    with contextlib.suppress(OSError, ValueError), opened(folder / "out") as out:
        descriptor = open_plain_file(PROGRESS, within=out)
        try:
            value = float(os.read(descriptor, 64))
        finally:
            os.close(descriptor)
        if 0 <= value <= 1:
            return value
    return None


def _argv(action: Sequence[str], text: str, own: Sequence[str]) -> list[str]:
    """The command line of a chunk; raises BadJob, BadChunk."""
    argv = command_line(action, text) or list(own)
    if not argv:
        raise BadJob("The job has no action, and its image no command of its own.")
    encoded_argv(argv)
    return argv


def _as_chunk(request: Run) -> Chunk:
    """The chunk as the contract of both runtimes knows it."""
    manifest = request.manifest
    job = ChunksJob(
        id=manifest.task,
        image=manifest.image,
        action=manifest.action,
        env=manifest.env,
        timeout_s=manifest.timeout_s,
        rows=manifest.rows,
    )
    return Chunk(
        id=request.chunk.id,
        run=request.chunk.run,
        input=request.chunk.input,
        job=job,
        ticket="",
        token=request.token,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, LauncherError):
        return str(error)
    return f"The launcher could not prepare the job ({getattr(error, 'strerror', None) or error})."
