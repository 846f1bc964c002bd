"""Jobs: from a client's request to a container that runs it, and back.

What happens when somebody dies:

* The client's connection drops: the job goes on. A client that comes back within 60 s and sends the same request
  (the same token) is told everything from the start; otherwise the job is killed and its container removed. A client
  that asks for something else instead has abandoned it: it is killed at once.
* The launcher dies: at its next start it removes every job container of its instance, at once, since nothing of
  their output was kept. The client, whose connection broke, waits for the socket and sends the same request again,
  which runs the chunk anew; what the program had put into /checkpoint is there.
* The engine dies: the launcher itself kills the job's processes, the client hears `engine`, and what is left of the
  container is removed once an engine answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from client_container.launcher.clients.plan import LABEL_KIND
from client_container.launcher.errors import EngineError
from client_container.launcher.files.cache import Cache
from client_container.launcher.files.slots import Slots
from client_container.launcher.jobs.bay import Bay, Job, surroundings
from client_container.launcher.jobs.cgroups import KeptTotals, Totals, parent_name
from client_container.launcher.jobs.engine import REMOVE_S, JobEngine
from client_container.launcher.jobs.execution import GRACE_S, LINGER_S, Outcome
from client_container.launcher.jobs.images import Images
from client_container.launcher.jobs.manifest import Allowance, check_manifest
from client_container.launcher.jobs.performance import Performance, read_progress
from client_container.launcher.jobs.ran import Ran, Running
from client_container.launcher.jobs.sandbox import KIND_JOB, MOST_SLOTS
from client_container.launcher.jobs.story import Emit, Story
from client_container.launcher.line import events
from client_container.launcher.line.wire import Refusal, Run
from client_container.launcher.policy.policy import Policy

log = logging.getLogger(__name__)

IDLE_S = 60.0  #: a warm container waits this long for the next chunk
HANDOVER_S = 30.0  #: the next request waits this long for the job before it to be cleared away
BUSY_S = 1.0  #: a job that nobody has listened to for this long may be replaced
CLOSE_S = 20.0  #: longest that closing waits for jobs to be removed
USED_S = 60.0  #: that an image is in use is noted this often


def _never() -> bool:
    return False


class Jobs:
    """All jobs of one launcher instance, at most one in each slot. For any number of threads."""

    def __init__(
        self,
        *,
        engine: JobEngine,
        home: Path,
        instance: str,
        labels: Mapping[str, str],
        first_uid: int,
        policy: Callable[[], Policy],
        gate: Callable[[], str | None],
        images: Images,
        slots: Slots,
        record: Callable[[Ran], None] = lambda ran: None,
        totals: Callable[[], tuple[float, int]] | None = None,
        runtime: str | None = None,
        grace_s: float = GRACE_S,
        linger_s: float = LINGER_S,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`gate` says why no job may run now, or None. `totals`: processors and bytes for the jobs of all instances of
        this host; the policy's own unless given. `home` must allow programs to be run; jobs live in home/slots.

        Raises EngineError, OSError.
        """
        cgroups = engine.cgroups()
        self._around = surroundings(
            engine=engine,
            slots=slots,
            home=home,
            instance=instance,
            labels=labels,
            first_uid=first_uid,
            files=lambda: policy().kept_files,
            cgroup_parent=parent_name(cgroups),
            runtime=runtime,
            grace_s=grace_s,
            linger_s=linger_s,
        )
        self._policy, self._gate, self._images, self._record = policy, gate, images, record
        self._totals = KeptTotals(
            Totals(cgroups), totals or (lambda: (policy().cpus, policy().memory)), clock
        )
        self._linger_s, self._idle_s, self._clock = linger_s, idle_s, clock
        self._lock = threading.Lock()
        self._admission = threading.Lock()  #: held from counting what runs to counting among it
        self._bays: dict[int, Bay] = {}
        self._used: dict[str, float] = {}
        self._closed = False

    def run(self, slot: int, request: Run, emit: Emit, gone: Callable[[], bool] = _never) -> None:
        """Run a chunk, or find the run of the same token, and tell `emit` its events until the end or until `gone`.

        What `emit` raises is raised; the job goes on.
        """
        try:
            with self._bay(slot).entering:
                job = self._enter(self._bay(slot), request)
        except Refusal as refusal:
            emit(events.refused(refusal))
            return
        except EngineError as error:
            emit(events.refused(Refusal("engine", str(error))))
            return
        job.story.tell(emit, gone)

    def kill(self, slot: int, token: str) -> bool:
        """End the slot's job if it has this token; False when it has not."""
        job = self._bay(slot).job
        if job is None or job.request.token != token or not job.running:
            return False
        job.control.stop("killed")
        return True

    def freeze(self) -> None:
        """Have all jobs stand still; `running` tells when they do."""
        for job in self._running():
            job.control.freeze(True)

    def thaw(self) -> None:
        """Let all jobs go on."""
        for job in self._running():
            job.control.freeze(False)

    def give_back(self) -> None:
        """End all jobs, giving them a moment to write their checkpoints, which are kept."""
        for job in self._running():
            job.control.stop("given_back")

    def running(self) -> list[Running]:
        """The jobs that run now."""
        return [self._shown(job) for job in self._running()]

    @property
    def cache(self) -> Cache:
        """The files that jobs of this host read."""
        return self._around.cache

    def policy(self) -> Policy:
        """What the volunteer allows now."""
        return self._policy()

    @property
    def totals_problem(self) -> str:
        """Why the totals of all jobs are not in force; empty when they are."""
        return self._totals.problem

    def sweep(self) -> None:
        """What is due every few seconds: totals, warm containers, what nobody knows any more, old checkpoints."""
        self._totals.ensure()
        now, shut = self._clock(), self._gate() is not None
        for bay in list(self._bays.values()):
            self._sweep_bay(bay, now=now, shut=shut)
        try:
            self._remove_unknown()
        except EngineError as error:
            log.warning("sweep failed", extra={"reason": str(error)})
        self._around.places.sweep(now=time.time())
        self.cache.trim()

    def close(self) -> None:
        """The launcher leaves: kill and remove all jobs. Their clients hear no end, and ask again later."""
        self._closed = True
        for job in self._running():
            job.control.stop("closing")
        ends = self._clock() + CLOSE_S
        for bay in list(self._bays.values()):
            if bay.job is not None:
                bay.job.story.drop()
                bay.job.over.wait(max(0.0, ends - self._clock()))
            if bay.job is None or bay.job.over.is_set():
                self._drop_cell(bay)

    def _bay(self, slot: int) -> Bay:
        if not 0 <= slot < MOST_SLOTS:
            raise ValueError(f"there is no slot {slot}")
        with self._lock:
            return self._bays.setdefault(slot, Bay(slot))

    def _running(self) -> list[Job]:
        with self._lock:
            return [bay.job for bay in self._bays.values() if bay.job is not None and bay.job.running]

    def _enter(self, bay: Bay, request: Run) -> Job:
        """The job of this token, started if it does not run; raises Refusal, EngineError."""
        last = bay.job
        if last is not None and last.request.token == request.token:
            return last
        if last is not None:
            self._make_way(last)
        self._allowed(request)  # what is not allowed is not looked for
        image = self._images.find(request.manifest.image)
        if image is None:
            raise Refusal("image_missing", "The job's image is not on this machine.")
        with self._admission:
            allowance = self._allowed(request)
            job = Job(bay.slot, request, allowance, image.id, datetime.now(timezone.utc), Story(self._clock))
            bay.job = job
        self._note_use(request.manifest.image)
        threading.Thread(target=self._perform, args=(job, bay), name=f"job-{bay.slot}", daemon=True).start()
        return job

    def _allowed(self, request: Run) -> Allowance:
        """What the job gets if it is started now; raises Refusal."""
        why = self._gate()
        if why is not None or self._closed:
            raise Refusal("paused", why or "The launcher is being stopped.")
        running = len(self._running())
        return check_manifest(request.manifest, request.chunk, policy=self._policy(), running=running)

    def _note_use(self, image: str) -> None:
        """Not for each chunk: it is written to the disk."""
        now = self._clock()
        if now - self._used.get(image, float("-inf")) > USED_S:
            self._used = {
                **{one: when for one, when in self._used.items() if now - when < USED_S},
                image: now,
            }
            self._images.used(image)

    def _make_way(self, last: Job) -> None:
        """Wait for the job before to be cleared away; end it first if its client has left it."""
        if last.running:
            if last.story.unheard_s() < BUSY_S:
                raise Refusal("busy", "This slot runs another chunk.")
            last.control.stop("killed")
        if not last.over.wait(HANDOVER_S):
            raise Refusal("busy", "This slot's last chunk is not cleared away yet.")

    def _perform(self, job: Job, bay: Bay) -> None:
        performance = Performance(self._around, job, bay)
        try:
            outcome = performance.run()
            self._note(job, performance, outcome)
        except Refusal as refusal:
            job.story.finish(events.refused(refusal))
        except Exception:
            log.exception("job broken", extra={"slot": job.slot, "chunk": job.request.chunk.id})
            job.story.finish(events.refused(Refusal("engine", "The launcher met an error it cannot answer.")))
        finally:
            bay.idle_since = self._clock()
            job.control.close()
            job.over.set()

    def _note(self, job: Job, performance: Performance, outcome: Outcome) -> None:
        manifest = job.request.manifest
        ran = Ran(
            slot=job.slot,
            project=manifest.project,
            task=manifest.task,
            chunk=job.request.chunk.id,
            image=job.image,
            started=job.since,
            ended=datetime.now(timezone.utc),
            ran_s=outcome.ran_s,
            cpu_s=outcome.cpu_s,
            cause=outcome.cause,
            exit_code=outcome.exit_code,
            bytes_in=performance.bytes_in,
            bytes_out=performance.bytes_out,
        )
        fields = {
            "slot": job.slot,
            "chunk": ran.chunk,
            "cause": ran.cause,
            "exit": ran.exit_code,
            "ran_s": ran.ran_s,
        }
        log.info("job ended", extra=fields)
        self._record(ran)

    def _shown(self, job: Job) -> Running:
        manifest = job.request.manifest
        cell = self._bay(job.slot).cell
        return Running(
            slot=job.slot,
            project=manifest.project,
            task=manifest.task,
            chunk=job.request.chunk.id,
            image=job.image,
            since=job.since,
            frozen=job.control.frozen,
            progress=read_progress(cell.folder) if cell else None,
        )

    def _sweep_bay(self, bay: Bay, *, now: float, shut: bool) -> None:
        """Drop a warm container that waited in vain, and the memory of a job that nobody came back for."""
        if not bay.entering.acquire(blocking=False):
            return  # a request is being answered: then nothing here is idle
        try:
            if bay.job is not None and not bay.job.over.is_set():
                return
            if shut or now - bay.idle_since > self._idle_s:
                self._drop_cell(bay)
            if bay.job is not None and bay.job.story.unheard_s() > self._linger_s:
                bay.job = None
        finally:
            bay.entering.release()

    def _drop_cell(self, bay: Bay) -> None:
        if bay.cell is not None and bay.job is not None:
            Performance(self._around, bay.job, bay).discard(keep_checkpoint=False, within=REMOVE_S)

    def _remove_unknown(self) -> None:
        """Remove job containers and folders of this instance that belong to no job of this launcher."""
        around = self._around
        found = around.engine.find({**around.labels, LABEL_KIND: KIND_JOB})
        known = self._known_names(around.container_name)
        for container, name in found.items():
            if name not in known:
                self._remove_stray(container)
        around.places.rescue(lambda: self._known_names(around.folder_name))

    def _remove_stray(self, container: str) -> None:
        """One that hangs must not keep the others."""
        try:
            self._around.engine.remove(container, within=REMOVE_S)
            log.info("job container of nobody removed", extra={"container": container[:12]})
        except EngineError as error:
            log.warning("job container stays", extra={"container": container[:12], "reason": str(error)})

    def _known_names(self, naming: Callable[[int, str], str]) -> set[str]:
        """Asked for after what is there was listed: whoever makes something notes its name before."""
        with self._lock:
            return {naming(bay.slot, bay.token) for bay in self._bays.values() if bay.token}
