"""Having a chunk's files on this host, through its launcher: each is fetched by one client and kept for all.

The launcher says which files are here and which this client is to fetch; another one's it waits for. What it fetched
the launcher copies to itself. What it has no room to keep stays in this client's own folder until the job is over.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from client_container.blob import Blob
from client_container.blobs import Blobs
from client_container.download import Download
from client_container.launcher.line.events import Event
from client_container.launcher.line.wire import Files, Keep, Refusal, WantedFile
from client_container.protocol import Chunk
from client_container.runtime import Halt
from client_container.runtime.arrival import arriving, unless_halted
from client_container.runtime.contract import in_files
from client_container.runtime.launcher_line import LauncherLine, pause_for

log = logging.getLogger(__name__)

ASK_S = 10.0  #: the launcher is asked again so often while a file comes: else another client is to fetch it
WAIT_S = 0.5  #: between two looks at what another client fetches
ANSWER_S = 600.0  #: the launcher hashes and copies meanwhile


class Errand:
    """For one client; `run` before a job is asked for, `clear` once it is over."""

    def __init__(
        self,
        line: LauncherLine,
        files: Path,
        blobs: Blobs,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._files, self._blobs, self._clock = line, files, blobs, clock
        self._download = Download(files)
        self._own: dict[str, Blob] = {}  #: what stays in our folder

    def run(self, chunk: Chunk, halt: Halt, interrupt: int) -> None:
        """Have all files of the chunk here.

        Raises Interrupted, JobHalted, GivenBack, HostBroken, BadJob, Refusal, LauncherAway, OSError.
        """
        wanted = {file.sha256: file.blob for file in in_files(chunk)}
        if chunk.input_file is not None:
            wanted[chunk.input_file.sha256] = chunk.input_file
        while left := {name: blob for name, blob in wanted.items() if name not in self._own}:
            answer = self._ask(chunk, left)
            if answer is None:  # a launcher of last year keeps nothing
                for blob in left.values():
                    self._fetch(chunk, blob, halt, lambda: None)
                    self._own[blob.sha256] = blob
                return
            fetch = [left[name] for name in _listed(answer, "fetch") if name in left]
            for blob in fetch:
                self._bring(chunk, blob, halt, left)
            if not fetch:
                if not _listed(answer, "wait"):
                    return
                pause_for(interrupt, WAIT_S)

    def clear(self) -> None:
        """The job is over: nothing of its stays in our folder."""
        for sha256 in self._own:
            with contextlib.suppress(OSError):
                (self._files / sha256).unlink()
        self._own = {}

    def _bring(self, chunk: Chunk, blob: Blob, halt: Halt, left: dict[str, Blob]) -> None:
        """Fetch one file and have the launcher keep it."""
        asked = self._clock()

        def still_at_it() -> None:
            nonlocal asked
            if self._clock() - asked > ASK_S:
                self._ask(chunk, left)
                asked = self._clock()

        self._fetch(chunk, blob, halt, still_at_it)
        request = Keep(sha256=blob.sha256, project=chunk.job.project)
        if self._line.answer(request, patience_s=ANSWER_S).get("kept") is True:
            (self._files / blob.sha256).unlink(missing_ok=True)
        else:
            self._own[blob.sha256] = blob

    def _fetch(self, chunk: Chunk, blob: Blob, halt: Halt, meanwhile: Callable[[], object]) -> None:
        wanted = unless_halted(chunk, halt)

        def going_on() -> None:
            wanted()
            meanwhile()

        with arriving():
            self._blobs.fetch(self._download, blob, chunk.proof, going_on)

    def _ask(self, chunk: Chunk, left: dict[str, Blob]) -> Event | None:
        """What the launcher says about files; None when it does not know what they are."""
        want = tuple(WantedFile(sha256=blob.sha256, bytes=blob.bytes) for blob in left.values())
        try:
            return self._line.answer(Files(want=want, project=chunk.job.project), patience_s=ANSWER_S)
        except Refusal as refusal:
            if refusal.code == "bad_request":
                return None
            raise


def _listed(answer: Event, name: str) -> list[str]:
    found = answer.get(name)
    return [str(one) for one in found] if isinstance(found, list) else []
