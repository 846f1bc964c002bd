"""How a job is executed: `process` as a child process, `sandbox` in a container of its own through the launcher."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from client_container.blob import NamedBlob
from client_container.protocol import Chunk


class JobHalted(Exception):
    """The execution was halted from outside; there is nothing to report."""


class GivenBack(Exception):
    """The chunk was not executed, through nobody's fault: it goes back to the server; the message says why."""


class CannotRun(GivenBack):
    """Jobs with this image cannot run here, for now: the server is told."""

    def __init__(self, image: str, sentence: str) -> None:
        super().__init__(sentence)
        self.image = image


class HostBroken(Exception):
    """This machine cannot execute anything right now (no disk space, no processes); the message says why."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What one execution of a chunk's job gave."""

    outcome: str  #: ok, failed, timeout, oom, output_limit or engine
    exit_code: int | None = None
    signal: int | None = None  #: number of the signal that ended the program
    stdout: str = ""  #: the answer; of a failed one the end of what it said, at most 8 KiB of UTF-8
    stderr_tail: str = ""  #: at most 8 KiB of UTF-8
    started: datetime
    ended: datetime  #: started + the duration on the monotonic clock
    cpu_s: float = 0.0
    runtime: str
    image: str | None  #: the image that really ran
    files: tuple[NamedBlob, ...] = ()  #: of /out; none unless the outcome is ok and the job asked for them
    folder: Path | None = None  #: where they lie under their hashes, for whoever takes them away


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Whether jobs may run here now."""

    paused: bool = False
    why: str = ""  #: a sentence, when paused
    #: Images whose jobs cannot run here, each with why.
    cannot: Mapping[str, str] = field(default_factory=dict)


class Halt:
    """Ends one execution from another thread: may be set at any time, before, during or after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._pipe: tuple[int, int] | None = None

    @property
    def is_set(self) -> bool:
        """Whether the execution is to end."""
        return self._set

    def set(self) -> None:
        """End the execution now."""
        with self._lock:
            if not self._set and self._pipe:
                os.write(self._pipe[1], b"!")
            self._set = True

    def open(self) -> int:
        """A descriptor that becomes readable when the halt is set; `close` it afterwards."""
        with self._lock:
            self._pipe = os.pipe()
            if self._set:
                os.write(self._pipe[1], b"!")
            return self._pipe[0]

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            for descriptor in self._pipe or ():
                os.close(descriptor)
            self._pipe = None


class Runtime(Protocol):
    """A way to execute jobs."""

    @property
    def name(self) -> str:
        """As it is called in the protocol."""

    def execute(self, chunk: Chunk, halt: Halt) -> Execution:
        """Run the chunk's job to its end; raises JobHalted, HostBroken, GivenBack."""

    def reported(self, chunk: Chunk) -> None:
        """What came of the chunk is kept for the server: nothing here needs to remember how far it was."""

    def standing(self) -> Standing:
        """Whether jobs may run now. Asked often, also while one runs, from any thread."""

    def close(self) -> None:
        """Leave nothing behind; called once, when the client ends."""
