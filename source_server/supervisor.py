"""Keep the parts of the source server running: start them in order, restart what dies, stop in reverse."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from source_server.stores.mongod_binary import MongodUnavailable
from source_server.tether import tethered

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1


class StartFailed(Exception):
    """A part did not get ready at the first start; the message is one sentence."""


class Part(Protocol):
    """Something that runs, may die, and can be started again (`Command`, `Errand`, `EmbeddedMongod`)."""

    @property
    def name(self) -> str:
        """How the log calls it."""

    def start(self, stopping: Callable[[], bool]) -> None:
        """Start it, or what is left of it, anew; `stopping` says to give up. May raise MongodUnavailable."""

    def ready(self) -> bool:
        """Whether it does its work by now."""

    def alive(self) -> bool:
        """Whether it runs."""

    def stop(self) -> None:
        """End it and all that it started; harmless when it does not run."""


class Command:
    """A part that is a command; it gets its own process group, which ends as a whole.

    `env` is called at each start: what a part before it made (the database's URI) is known by then.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Callable[[], Mapping[str, str]],
        ready: Callable[[], bool] = lambda: True,
        grace_s: float = 15.0,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._make_env = env
        self._is_ready = ready
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs, else None."""
        return self._process.pid if self._process and self.alive() else None

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Start the command; what a dead one left behind (a web process on the port) is killed first."""
        self._sweep()
        self._process = subprocess.Popen(
            tethered(self._argv), env=self._make_env(), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def ready(self) -> bool:
        """What the ready check says, of a command that runs."""
        return self.alive() and self._is_ready()

    def alive(self) -> bool:
        """Whether the command runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to the whole group after the grace."""
        if self._process is not None and self.alive():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace_s)
        self._sweep()

    def _sweep(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Errand:
    """A part that is a command to be done once, with success, before the parts after it are started."""

    def __init__(self, name: str, argv: Sequence[str], *, env: Callable[[], Mapping[str, str]]) -> None:
        self.name = name
        self._argv = list(argv)
        self._make_env = env

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Do it. Raises StartFailed with the command's last line on stderr when it fails."""
        with subprocess.Popen(
            tethered(self._argv),
            env=self._make_env(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        ) as process:
            said = self._await_end(process, stopping)
        if process.returncode != 0 and not stopping():
            lines = said.strip().splitlines() or [f"The server's part {self.name} failed without a word."]
            raise StartFailed(lines[-1].removeprefix("Error: "))

    def ready(self) -> bool:
        """Always: `start` returns when it is done."""
        return True

    def alive(self) -> bool:
        """Always: done is done, and it is not to be done again."""
        return True

    def stop(self) -> None:
        """Nothing is left to stop."""

    @staticmethod
    def _await_end(process: subprocess.Popen[str], stopping: Callable[[], bool]) -> str:
        while True:
            if stopping():
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=_LOOK_EVERY_S)[1]


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How long to wait before the next start of a part that died."""

    first_s: float = 0.5
    cap_s: float = 30.0
    settled_s: float = 60.0  #: a part that lived this long starts over with the first delay

    def delay_s(self, deaths: int) -> float:
        """The delay after so many deaths in a row (1 or more): doubled each time, up to the cap."""
        # Beyond 2^20 the cap has long been reached.
        return float(min(self.cap_s, self.first_s * 2 ** min(deaths - 1, 20)))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the supervisor knows of one part; times are seconds on its clock."""

    deaths: int = 0  #: in a row
    started_at: float = 0.0
    due_at: float | None = None  #: when to start it again; None while it is thought to run

    def died(self, now: float, policy: RestartPolicy) -> Watched:
        """It was found dead now."""
        deaths = 1 if now - self.started_at >= policy.settled_s else self.deaths + 1
        return replace(self, deaths=deaths, due_at=now + policy.delay_s(deaths))


class Supervisor:
    """Runs the parts until `stopping` says so. Use it from the main thread: children die with it."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        stopping: Callable[[], bool],
        policy: RestartPolicy | None = None,
        ready_timeout_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._parts = list(parts)
        self._stopping = stopping
        self._policy = policy or RestartPolicy()
        self._ready_timeout_s = ready_timeout_s
        self._clock = clock
        self._wait = wait
        self._watched: dict[str, Watched] = {}

    def run(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Start all, call `when_ready` once they are, keep them running until stopping; stop all.

        Raises StartFailed or MongodUnavailable when the first start fails; then everything is stopped too.
        """
        try:
            self.start()
            if not self._stopping():
                when_ready()
            while not self._stopping():
                self.step()
                self._wait(_LOOK_EVERY_S)
        finally:
            self.stop()

    def start(self) -> None:
        """Start the parts in order, each once the one before is ready; returns early when stopping."""
        for part in self._parts:
            if self._stopping():
                return
            self._watched[part.name] = Watched(started_at=self._clock())
            part.start(self._stopping)
            self._await_ready(part)
            log.info("part is ready", extra={"part": part.name})

    def step(self) -> None:
        """Look at every part once: note what died, start again what is due."""
        for part in self._parts:
            seen = self._watched[part.name]
            if seen.due_at is None and not part.alive():
                self._note_death(part, seen, reason="it ended")
            elif seen.due_at is not None and self._clock() >= seen.due_at:
                self._restart(part, seen)

    def stop(self) -> None:
        """Stop the parts that were started, the last one first."""
        for part in reversed(self._parts):
            if part.name in self._watched:
                part.stop()
                log.info("part is stopped", extra={"part": part.name})
        self._watched.clear()

    def _await_ready(self, part: Part) -> None:
        deadline = self._clock() + self._ready_timeout_s
        while not part.ready() and not self._stopping():
            if not part.alive():
                raise StartFailed(
                    f"The server's part {part.name} ended before it was ready: see what it wrote."
                )
            if self._clock() > deadline:
                raise StartFailed(
                    f"The server's part {part.name} was not ready after {self._ready_timeout_s:g} s."
                )
            self._wait(_LOOK_EVERY_S)

    def _restart(self, part: Part, seen: Watched) -> None:
        if self._stopping():
            return
        started_at = self._clock()
        try:
            part.start(self._stopping)
        except (MongodUnavailable, OSError) as error:
            self._note_death(part, replace(seen, started_at=started_at), reason=str(error))
        else:
            self._watched[part.name] = replace(seen, started_at=started_at, due_at=None)
            log.info("part is started again", extra={"part": part.name})

    def _note_death(self, part: Part, seen: Watched, *, reason: str) -> None:
        noted = seen.died(self._clock(), self._policy)
        self._watched[part.name] = noted
        delay_s = self._policy.delay_s(noted.deaths)
        details = {"part": part.name, "reason": reason, "deaths": noted.deaths, "again_in_s": delay_s}
        log.warning("part died", extra=details)
