"""When the sandbox's walls are tried out, and what came of it: no job starts before they were found to hold."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from client_container.durable import write_durably
from client_container.launcher.errors import LauncherError

log = logging.getLogger(__name__)

VALID = timedelta(days=9)  #: the weekly timer may be late by a day or two
AGAIN = timedelta(minutes=10)  #: after one that could not be finished

GPUS = "job: graphics processors"  #: the check that is no wall: without it there is only nothing to lend

PASSED, FAILED, UNKNOWN = "passed", "failed", "unknown"

Run = Callable[[], "Verdict"]  #: tries every wall out; takes seconds to a minute. Raises LauncherError


class NotTested(LauncherError):
    """The self-test could not be finished."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a self-test found."""

    verdict: str = UNKNOWN  #: passed, failed, or unknown when it could not be finished
    at: str | None = None  #: UTC, ISO 8601
    checks: tuple[dict[str, Any], ...] = ()  #: name, ok, said
    of: str = ""  #: what was tested: engine and launcher; another one has to be tested anew

    @property
    def sentence(self) -> str:
        """Why no job may start; empty when one may."""
        if self.verdict == PASSED:
            return ""
        if self.verdict == UNKNOWN:
            return "The self-test of the sandbox has not passed yet."
        bad = (check.get("name") for check in self.checks if not check.get("ok"))
        failed = ", ".join(str(name) for name in bad if name != GPUS)
        return f"The self-test of the sandbox failed ({failed}); see dockercomp-volunteer self-test."

    @property
    def tried_gpus(self) -> bool:
        """Whether it was looked at if jobs get graphics processors."""
        return any(check.get("name") == GPUS for check in self.checks)

    @property
    def gpus_work(self) -> bool:
        """Whether jobs were seen to get graphics processors."""
        return any(check.get("name") == GPUS and check.get("ok") is True for check in self.checks)


class SelfTests:
    """Keeps the latest verdict in a file, and has the test run in a thread of its own when one is due."""

    def __init__(
        self, file: Path, *, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    ) -> None:
        self._file, self._now = file, now
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._of = ""
        self._tried_at: datetime | None = None
        self._thread: threading.Thread | None = None
        self._repeat = False
        self.latest = _read(file)

    def use(self, run: Run, *, of: str) -> None:
        """From now on this is how the test is run, and what it tests."""
        self._run, self._of = run, of
        if self.latest.of != of:
            self.latest, self._tried_at = Verdict(), None

    def repeat(self) -> None:
        """Another test is due, unless one runs; the verdict holds until it is over."""
        self._repeat = self._thread is None or not self._thread.is_alive()

    def step(self) -> None:
        """Start a test if one is due."""
        running = self._thread is not None and self._thread.is_alive()
        if self._run is not None and not running and self._due():
            self._tried_at, self._repeat = self._now(), False
            self._thread = threading.Thread(target=self._try, name="self-test", daemon=True)
            self._thread.start()

    def run_now(self) -> Verdict:
        """Run the test, or wait for the one that runs; its verdict. Raises NotTested."""
        if self._run is None:
            raise NotTested("The launcher is not ready for a self-test: no Docker engine answers.")
        with self._lock:
            return self._carry_out(self._run)

    def _try(self) -> None:
        try:
            self.run_now()
        except LauncherError as error:
            log.error("self-test not finished", extra={"why": str(error)})

    def _carry_out(self, run: Run) -> Verdict:
        log.info("self-test started")
        try:
            found = run()
        except LauncherError:
            self.latest = Verdict(of=self._of)
            raise
        self.latest = Verdict(verdict=found.verdict, at=found.at, checks=found.checks, of=self._of)
        log.info("self-test finished", extra={"verdict": self.latest.verdict})
        self._write()
        return self.latest

    def _due(self) -> bool:
        if self.latest.at is not None and self.latest.verdict != UNKNOWN:
            if self._repeat:
                return True
            return self._now() - datetime.fromisoformat(self.latest.at.replace("Z", "+00:00")) >= VALID
        return self._tried_at is None or self._now() - self._tried_at >= AGAIN

    def _write(self) -> None:
        try:
            write_durably(self._file, json.dumps(vars(self.latest)).encode())
        except OSError as error:
            log.warning("verdict not written", extra={"reason": error.strerror})


def _read(file: Path) -> Verdict:
    try:
        kept = json.loads(file.read_text())
        datetime.fromisoformat(kept["at"].replace("Z", "+00:00"))
        checks = tuple(dict(check) for check in kept["checks"])
        return Verdict(verdict=str(kept["verdict"]), at=kept["at"], checks=checks, of=str(kept["of"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Verdict()
