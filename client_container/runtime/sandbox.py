"""The sandbox runtime: each chunk in a container of its own, which the launcher on this host makes and watches.

This container has no Docker socket and could not weaken a job's limits: it hands the launcher what the server said,
and hears what came of it. When the launcher is restarted the connection breaks; the client then waits for it to come
back and sends the same request again, which continues or repeats the execution.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from client_container.blob import is_sha256
from client_container.blobs import Blobs
from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.launcher.line.events import End, Event, output_data
from client_container.launcher.line.wire import (
    GivenChunk,
    GivenFile,
    Kill,
    Manifest,
    Pull,
    Refusal,
    Run,
    Stats,
)
from client_container.protocol import FEATURES, Chunk, Introduction, Job
from client_container.runtime import CannotRun, Execution, GivenBack, Halt, HostBroken, JobHalted, Standing
from client_container.runtime.contract import (
    STDERR_BYTES,
    STDOUT_BYTES,
    BadChunk,
    BadJob,
    command_line,
    encoded_argv,
    encoded_input,
    in_files,
    tail,
)
from client_container.runtime.errand import Errand
from client_container.runtime.launcher_line import Interrupted, LauncherAway, LauncherLine, pause_for
from client_container.runtime.verdict import kept_files, not_run, verdict

log = logging.getLogger(__name__)

#: Brings the archive of an image into the slot's files/; answers its hex sha256.
Fetch = Callable[[Job], str]

AWAY_S = 120.0  #: a launcher that is away for longer makes this host a broken one
AGAIN_S = 1.0  #: between two tries
BUSY_S = 90.0  #: a slot that stays busy for longer does not get the chunk
PULL_SILENCE_S = 600.0  #: without a word about an image on its way
STATS_S = 3.0  #: for an answer that needs no work
STANDING_S = 2.0  #: what the launcher said about pauses is believed this long
CANNOT_S = 3600.0  #: and what it said about an image
MOST_CANNOT = 16
MOST_VANISHED = 3  #: times that a file is gone when its job is about to start


class SandboxRuntime:
    """Executes one job at a time, through the launcher."""

    name = "sandbox"

    def __init__(
        self,
        line: LauncherLine,
        *,
        files: Path,
        fetch: Fetch,
        blobs: Blobs,
        clock: Callable[[], float] = time.monotonic,
        away_s: float = AWAY_S,
    ) -> None:
        """`files` is the folder of this client's slot through which files come and go."""
        self._line, self._files, self._fetch, self._clock, self._away_s = line, files, fetch, clock, away_s
        self._errand = Errand(line, files, blobs)
        self._lock = threading.Lock()
        self._cannot: dict[str, tuple[float, str]] = {}
        self._standing = (float("-inf"), Standing())
        self._here: set[str] = set()  #: images that the launcher said it has

    def execute(self, chunk: Chunk, halt: Halt) -> Execution:
        """Run the chunk's job to its end; raises JobHalted, HostBroken, GivenBack, CannotRun."""
        began = datetime.now(timezone.utc)
        facts = self._attempt(chunk, halt)
        if halt.is_set:
            raise JobHalted(chunk.id)
        ran_s = facts.pop("ran_s", 0.0)
        return Execution(
            started=began,
            ended=began + timedelta(seconds=ran_s),
            runtime=self.name,
            image=facts.pop("image", None),
            **facts,
        )

    def reported(self, chunk: Chunk) -> None:
        """Nothing is kept here; the launcher knows when a chunk has its result."""

    def standing(self) -> Standing:
        """Whether the volunteer's conditions let jobs run now. A launcher that is away pauses nothing."""
        when, standing = self._standing
        if self._clock() - when > STANDING_S:
            with contextlib.suppress(LauncherAway, Refusal):
                stats = self.stats()
                standing = Standing(paused=stats.get("paused") is True, why=str(stats.get("why") or ""))
            self._standing = (self._clock(), standing)
        return Standing(paused=standing.paused, why=standing.why, cannot=self._told_cannot())

    def stats(self) -> Event:
        """What the launcher says of how things stand; raises LauncherAway, Refusal."""
        return self._line.answer(Stats(), patience_s=STATS_S)

    def close(self) -> None:
        """Nothing is left here; the launcher clears up."""

    def _attempt(self, chunk: Chunk, halt: Halt) -> dict[str, Any]:
        try:
            request = _request(chunk)
        except (BadJob, BadChunk) as error:
            return not_run(error)
        interrupt, vanished = halt.open(), 0
        try:
            while True:
                try:
                    return self._run(chunk, request, halt, interrupt)
                except Refusal as refusal:  # a file vanished between the launcher's word and our request
                    vanished += 1
                    if vanished > MOST_VANISHED:
                        raise HostBroken(refusal.sentence) from refusal
                    self._errand.clear()
                    request = replace(request, token=str(uuid.uuid4()))  # the old one's end is told already
        except BadJob as error:
            return not_run(error)
        except OSError as error:
            raise HostBroken(f"The chunk's files cannot be kept here ({error.strerror or error}).") from error
        except Interrupted:
            with contextlib.suppress(LauncherAway, Refusal):
                self._line.answer(Kill(token=request.token), patience_s=10.0)
            raise JobHalted(chunk.id) from None
        finally:
            self._errand.clear()
            halt.close()

    def _run(self, chunk: Chunk, request: Run, halt: Halt, interrupt: int) -> dict[str, Any]:
        """Run it as often as it takes; raises what execute raises, and Refusal for a file that is not there."""
        tries = _Patience(self._clock, self._away_s)
        image = request.manifest.image
        while True:
            try:
                self._have_image(chunk.job, request, interrupt)
                self._errand.run(chunk, halt, interrupt)
                return self._hear(chunk, request, interrupt)
            except LauncherAway as error:
                tries.again("away", str(error), HostBroken)
            except Refusal as refusal:
                if refusal.code == "busy":
                    tries.again("busy", refusal.sentence, GivenBack, most_s=BUSY_S)
                elif refusal.code == "image_missing" and image in self._here:
                    self._here.discard(image)  # removed meanwhile to make room
                    continue
                elif refusal.code == "file_missing":
                    raise
                else:
                    return self._refused(request, refusal)
            pause_for(interrupt, AGAIN_S)

    def _hear(self, chunk: Chunk, request: Run, interrupt: int) -> dict[str, Any]:
        """Run the chunk and listen to the end."""
        stdout, stderr = bytearray(), bytearray()
        for event in self._line.ask(request, interrupt=interrupt):
            try:
                match event.get("event"):
                    case "started":  # all is told from here, also when it was told before
                        stdout.clear()
                        stderr.clear()
                    case "stdout":
                        stdout += output_data(event)[: STDOUT_BYTES + 1 - len(stdout)]
                    case "stderr":
                        stderr += output_data(event)
                        del stderr[:-STDERR_BYTES]
                    case "end":
                        return self._ended(chunk, End.from_event(event), bytes(stdout), bytes(stderr))
            except ValueError as error:
                raise HostBroken(f"The launcher speaks another language ({error}).") from error
        raise LauncherAway("The launcher told no end.")

    def _ended(self, chunk: Chunk, end: End, stdout: bytes, stderr: bytes) -> dict[str, Any]:
        if end.cause == "engine":
            raise HostBroken(end.note or "The container engine of this host failed.")
        if end.cause in ("given_back", "killed"):
            raise GivenBack(end.note or "The owner of this host took it back.")
        facts = verdict(
            chunk,
            cause=end.cause,
            exit_code=end.exit_code,
            signal=end.signal,
            cpu_s=end.cpu_s,
            stdout=stdout,
            stderr=stderr,
            note=end.note,
        )
        made = [file for file in end.files if is_sha256(file.sha256)]
        outcome = facts["outcome"] if chunk.job.outputs else "nothing is wanted"
        files = kept_files(made, self._files, outcome=outcome)
        return facts | files | {"image": end.image, "ran_s": end.ran_s}

    def _refused(self, request: Run, refusal: Refusal) -> dict[str, Any]:
        image, sentence = request.manifest.image, refusal.sentence
        if refusal.code in ("image_missing", "image_too_large", "not_allowed", "archive_needed"):
            self._note_cannot(image, sentence)
            raise CannotRun(image, sentence)
        if refusal.code in ("paused", "busy"):
            raise GivenBack(sentence)
        if refusal.code == "engine":
            raise HostBroken(sentence)
        return {"outcome": "engine", "stderr_tail": tail(b"", sentence)}

    def _have_image(self, job: Job, request: Run, interrupt: int) -> None:
        """Have the launcher bring the image, unless it is known to be here; raises Refusal, LauncherAway."""
        image, project = request.manifest.image, request.manifest.project
        if image in self._here:
            return
        try:
            self._pull(Pull(image=image, project=project), interrupt)
        except Refusal as refusal:
            if refusal.code != "archive_needed":
                raise
            sha256 = self._fetched(job)
            try:
                self._pull(Pull(image=image, file=sha256, project=project), interrupt)
            finally:
                with contextlib.suppress(OSError):
                    (self._files / sha256).unlink()
        self._here.add(image)

    def _fetched(self, job: Job) -> str:
        try:
            return self._fetch(job)
        except (ServerUnavailable, LifeEnded) as error:
            raise GivenBack(f"The image's archive did not arrive ({error}).") from error
        except Refused as error:
            raise Refusal("image_missing", error.sentence) from error
        except OSError as error:
            raise HostBroken(
                f"The image's archive cannot be kept here ({error.strerror or error})."
            ) from error

    def _pull(self, request: Pull, interrupt: int) -> None:
        for event in self._line.ask(request, interrupt=interrupt, patience_s=PULL_SILENCE_S):
            if event.get("event") == "end":
                log.info("image here", extra={"image": request.image})

    def _note_cannot(self, image: str, sentence: str) -> None:
        with self._lock:
            self._cannot.pop(image, None)
            self._cannot[image] = (self._clock() + CANNOT_S, sentence)
            while len(self._cannot) > MOST_CANNOT:
                del self._cannot[next(iter(self._cannot))]

    def _told_cannot(self) -> dict[str, str]:
        with self._lock:
            now = self._clock()
            self._cannot = {image: said for image, said in self._cannot.items() if said[0] > now}
            return {image: sentence for image, (_, sentence) in self._cannot.items()}


class _Patience:
    """Counts how long something has not worked, by kind of trouble."""

    def __init__(self, clock: Callable[[], float], most_s: float) -> None:
        self._clock, self._most_s = clock, most_s
        self._since: dict[str, float] = {}

    def again(
        self, trouble: str, sentence: str, error: type[Exception], *, most_s: float | None = None
    ) -> None:
        """One more failure; raises `error` when it has been like this for too long."""
        since = self._since.setdefault(trouble, self._clock())
        if self._clock() - since > (self._most_s if most_s is None else most_s):
            raise error(sentence)


def _request(chunk: Chunk) -> Run:
    """The chunk as the launcher is asked for it; raises BadJob, BadChunk as every runtime does."""
    job = chunk.job
    if job.image is None:
        raise BadJob("The job names no image, and the sandbox runs nothing else.")
    files = tuple(GivenFile(name=file.name, sha256=file.sha256) for file in in_files(chunk))
    if chunk.input_file is None:
        encoded_argv(command_line(job.action, chunk.input))
        encoded_input(chunk.input)
    sha256 = chunk.input_file.sha256 if chunk.input_file else None
    manifest = Manifest(
        image=job.image,
        action=job.action,
        env=job.env,
        timeout_s=job.timeout_s,
        rows=job.rows,
        project=job.project,
        task=job.task,
        memory_mb=job.memory_mb,
        cpus=job.cpus,
        disk_mb=job.disk_mb,
        outputs=job.outputs,
        gpu=job.gpu,
    )
    return Run(
        token=str(uuid.uuid4()),
        manifest=manifest,
        chunk=GivenChunk(id=chunk.id, run=chunk.run, input=chunk.input, input_file=sha256),
        files=files,
    )


def first_stats(line: LauncherLine, *, patience_s: float = 30.0) -> Event:
    """What the launcher says at our start, for which it may have to be waited; raises LauncherAway."""
    ends = time.monotonic() + patience_s
    while True:
        try:
            return line.answer(Stats(), patience_s=STATS_S)
        except (LauncherAway, Refusal) as error:
            if time.monotonic() > ends:
                raise LauncherAway(str(error)) from error
            time.sleep(AGAIN_S)


def introduced(who: Introduction, stats: Event) -> Introduction:
    """What we say of ourselves, with what the launcher said of this host. Read leniently: it may be older or newer."""
    policy, self_test = stats.get("policy"), stats.get("self_test")
    policy = policy if isinstance(policy, dict) else {}
    projects, shares = policy.get("projects"), policy.get("shares")
    verdict = self_test.get("verdict") if isinstance(self_test, dict) else None
    known = stats.get("features")
    known = known if isinstance(known, list) else []
    return replace(
        who,
        features=tuple(
            one for one in FEATURES if one in known
        ),  # we know them, and the launcher carries them out
        projects=tuple(map(str, projects)) if isinstance(projects, list) else None,
        shares=shares if isinstance(shares, dict) else {},
        self_test=verdict if verdict in ("passed", "failed") else "unknown",
    )
