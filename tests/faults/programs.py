"""Real programs under fault: started, stopped, killed, and started again when they end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from source_server.tether import tethered

RESTART_S = 0.5  #: after a death that nobody wanted

#: What a part of the server may say before it ends, when it is started while there is no primary.
_NO_DATABASE = ("DatabaseUnavailable", "The database did not answer in time")


class CannotGoOn(Exception):
    """The run cannot be continued; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """A program ended by itself."""

    program: str
    code: int
    words: str  #: the end of what it wrote


class Program:
    """One program in a process group of its own; its output goes to a file. Use it from the main thread."""

    def __init__(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.name, self._argv, self._env, self._log = name, list(argv), dict(env), log
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._due: float | None = None  #: when to start it again
        self.deaths: list[Death] = []
        self.excused = 0  #: deaths for want of a database

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    def start(self) -> None:
        """Start it, unless it runs."""
        self._due = None
        if self.pid:
            return
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self._argv),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the program and its own processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """kill -9, stopped or not; it stays dead until `start`."""
        if self._process is not None:
            self.signal_all(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def end(self, *, within_s: float) -> int | None:
        """SIGTERM; its exit code, or None when it had to be killed or did not run."""
        if self._process is None:
            return None
        code: int | None = None
        self.signal_all(signal.SIGCONT)
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(within_s)
        self.kill()
        return code

    def look(self) -> None:
        """Note a death that nobody wanted, and start the program again a little later."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._note_death(code)
            self.kill()
            self._due = time.monotonic() + RESTART_S
        if self._due is not None and time.monotonic() >= self._due:
            self.start()

    def written(self) -> str:
        """What it wrote since its last start."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def _note_death(self, code: int) -> None:
        words = self.written()
        if code in (1, 2, 3) and any(one in words for one in _NO_DATABASE):
            self.excused += 1
        else:
            self.deaths.append(Death(program=self.name, code=code, words=words[-2000:]))


def processes_of(folder: Path) -> list[int]:
    """Every process whose environment names the run's folder."""
    mark, found = os.fsencode(folder), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found
