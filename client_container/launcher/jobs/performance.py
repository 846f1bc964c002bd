"""One job from beginning to end: its container, its files, its process, and what is kept afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from client_container.launcher.errors import EngineAway, EngineError, LauncherError
from client_container.launcher.files.collect import PROGRESS, Collection, collect
from client_container.launcher.files.folders import open_plain_file, opened
from client_container.launcher.files.slots import BadFile
from client_container.launcher.jobs.bay import Bay, Job, Surroundings
from client_container.launcher.jobs.engine import CALL_S, ImageFacts
from client_container.launcher.jobs.execution import Execution, Outcome, Task
from client_container.launcher.jobs.inputs import Inbox, fill_in
from client_container.launcher.jobs.run_task import argv_from_file, fills_in_from_file, task_of
from client_container.launcher.jobs.sandbox import Sandbox, same_use
from client_container.launcher.jobs.startable import require_startable
from client_container.launcher.jobs.warm import Cell, open_cell
from client_container.launcher.line import events
from client_container.launcher.line.events import End
from client_container.launcher.line.wire import Refusal
from client_container.runtime.contract import (
    CHUNK_FILE,
)

log = logging.getLogger(__name__)

#: Endings without a result: the chunk will be tried again, perhaps here, and goes on from its checkpoint.
WITHOUT_RESULT = frozenset({"given_back", "killed", "engine", "closing"})


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
            task = task_of(self._job.request, self._job.allowance, facts)
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
            gpu=job.request.manifest.gpu,
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
        try:
            bay.cell = open_cell(self._engine, sandbox, container, use)
        except EngineError as error:
            if not sandbox.gpu or isinstance(error, EngineAway):
                raise
            raise EngineError(f"This host cannot hand its graphics processors to the job: {error}") from error
        return bay.cell

    def _stands(self, cell: Cell) -> bool:
        return cell.empty_of_jobs() and self._engine.state(cell.id).running

    def _execute(self, cell: Cell, task: Task) -> Outcome:
        job = self._job
        stdin, argv = self._fill_in(cell), task.argv
        if fills_in_from_file(job.request):
            argv = argv_from_file(job.request, stdin)
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


def _reason(error: Exception) -> str:
    if isinstance(error, LauncherError):
        return str(error)
    return f"The launcher could not prepare the job ({getattr(error, 'strerror', None) or error})."
