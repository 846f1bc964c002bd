"""One chunk's process in a job container, from its start to its end: output, time, disk, orders.

How endings are told apart. The engine only knows an exit code, 128 + n where signal n ended the process; a program
that exits with such a code itself looks the same, and is reported as ended by the signal, as by the process runtime
and by every shell. What we did ourselves (timeout, a limit, an order) is told as the cause and outranks the code;
memory that ran out is told by the kernel's counter, also when it was a child alone that was killed for it.

Time is measured on CLOCK_MONOTONIC, which stands still while the machine sleeps, and not while the job is frozen.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client_container.launcher.errors import EngineError
from client_container.launcher.files import folders
from client_container.launcher.files.folders import Usage
from client_container.launcher.jobs.control import Control
from client_container.launcher.jobs.demux import BadStream, Demultiplexer
from client_container.launcher.jobs.engine import ContainerGone, ExecState, JobEngine
from client_container.launcher.jobs.story import Story
from client_container.launcher.jobs.warm import Cell

GRACE_S = 10.0  #: between TERM and KILL
LINGER_S = 60.0  #: a job that nobody listens to is ended after this long
LOOK_S = 0.5  #: between two looks at what the job wrote
MOST_INODES = 10_000  #: in /out and /checkpoint together
#: After the process ended its output is read until it ends; or is silent this long, or goes on for so long.
DRAIN_S, LONGEST_DRAIN_S = 1.0, 10.0
SETTLE_S = 0.5  #: a container whose program was killed is seen to stand for this long
STDERR_RATE, STDERR_BURST = 2**20, 8 * 2**20  #: bytes a second: more only heats the engine, and is not kept

_READ = 64 * 1024
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
#: The engine's words when it is the image or the command line that is at fault, not the engine.
_MISSING = ("executable file not found", "no such file or directory")
_UNUSABLE = (
    "permission denied",
    "exec format error",
    "is a directory",
    "argument list too long",
    "not a directory",
)
#: Signals that do not end a process.
_HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, *range(19, 23)}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be executed."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: Path = Path(os.devnull)  #: a file of ours, from which its input comes
    timeout_s: float
    disk: int  #: bytes that /out and /checkpoint may have together


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended."""

    cause: str | None = None  #: as on the wire; None when it ended by itself
    exit_code: int | None = None
    signal: int | None = None
    ran_s: float = 0.0
    cpu_s: float = 0.0
    note: str = ""

    @property
    def clean(self) -> bool:
        """Whether the program ended by itself and was content."""
        return self.cause is None and self.exit_code == 0


class Stopwatch:
    """Seconds that passed while the job could run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._began = clock, clock()
        self._stopped: float | None = None

    def elapsed(self) -> float:
        """Seconds so far."""
        return (self._clock() if self._stopped is None else self._stopped) - self._began

    def stop(self) -> None:
        """From here on no time counts."""
        if self._stopped is None:
            self._stopped = self._clock()

    def resume(self) -> None:
        """Time counts again."""
        if self._stopped is not None:
            self._began += self._clock() - self._stopped
            self._stopped = None


class Execution:
    """Runs one task in a cell. After it the cell holds whatever the task left running; see warm.py."""

    def __init__(
        self,
        engine: JobEngine,
        cell: Cell,
        story: Story,
        control: Control,
        *,
        grace_s: float = GRACE_S,
        linger_s: float = LINGER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._cell, self._story, self._control = engine, cell, story, control
        self._grace_s, self._linger_s, self._clock = grace_s, linger_s, clock
        self._watch = Stopwatch(clock)
        self._cause: str | None = None
        self._note = ""
        self._over = False  #: nothing more is to be waited for
        self._ended_at: float | None = None  #: on `clock`: the process is gone
        self._stderr_total = 0

    def run(self, task: Task) -> Outcome:
        """Run it to its end, whatever that is; raises EngineError when the engine did not even start it."""
        cell = self._cell
        kills, cpu_s = cell.group.oom_kills(), cell.group.cpu_s()
        self._watch, self._deadline = Stopwatch(self._clock), task.timeout_s
        exec_id = self._engine.prepare_exec(cell.id, task.argv, env=task.env, uid=cell.sandbox.uid)
        self._exec_id = exec_id
        connection, early = self._engine.start_exec(exec_id)
        with contextlib.closing(connection):
            try:
                with task.stdin.open("rb") as self._source:
                    self._follow(connection, early, exec_id, task)
                state = self._final_state(exec_id)
                outcome = self._judged(state, task, oom_kills=cell.group.oom_kills() - kills)
            except (EngineError, OSError, BadStream) as error:
                return self._engine_broke(error)
        return replace(outcome, cpu_s=round(max(0.0, cell.group.cpu_s() - cpu_s), 3))

    def _follow(self, connection: socket.socket, early: bytes, exec_id: str, task: Task) -> None:
        """Pass input and output, and look after it, until the stream ends or nothing more is to be waited for."""
        self._demultiplexer = Demultiplexer()
        self._connection, self._input = connection, memoryview(self._source.read(_READ))
        connection.setblocking(False)
        self._take(early)
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self._on_stream)
            self._selector.register(self._control.descriptor, selectors.EVENT_READ, self._on_order)
            next_look = self._clock() + LOOK_S
            while not self._over:
                self._throttle()
                for key, mask in self._selector.select(min(LOOK_S, self._patience(next_look))):
                    key.data(mask)
                self._on_time()
                if self._clock() >= next_look and not self._over:
                    began = self._clock()
                    self._look(exec_id, task)
                    # A folder that takes long to look at must not keep us busy with looking.
                    next_look = self._clock() + max(LOOK_S, 5 * (self._clock() - began))

    def _patience(self, next_look: float) -> float:
        return max(0.0, min(next_look - self._clock(), self._deadline - self._watch.elapsed()))

    def _on_stream(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write()
        if mask & selectors.EVENT_READ:
            try:
                data = self._connection.recv(_READ)
            except BlockingIOError:
                return
            self._take(data)
            self._over = self._over or not data

    def _write(self) -> None:
        """Give the program more of its input; one that does not read it, or ended, is no error."""
        try:
            if self._input:
                self._input = self._input[self._connection.send(self._input) :]
            if not self._input:
                self._input = memoryview(self._source.read(_READ))
            if not self._input:
                self._connection.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._input = self._input[:0]
        if not self._input:
            self._selector.modify(self._connection, selectors.EVENT_READ, self._on_stream)

    def _take(self, data: bytes) -> None:
        self._heard_at = self._clock()
        for stream, piece in self._demultiplexer.feed(data):
            if stream == "stderr":
                self._stderr_total += len(piece)
                self._story.add_stderr(piece)
            elif not self._story.add_stdout(piece) and self._cause in (None, "timeout"):
                self._end_now("output_limit")

    def _throttle(self) -> None:
        """Leave what floods stderr in its pipe: reading it would cost processor time beyond the job's share."""
        excess = self._stderr_total - (STDERR_BURST + STDERR_RATE * self._watch.elapsed())
        if excess > 0 and self._ended_at is None:
            time.sleep(min(_READ, excess) / STDERR_RATE)  # one read for each round of the loop

    def _on_order(self, mask: int) -> None:
        self._control.heard()

    def _on_time(self) -> None:
        """Orders, the deadline, and the last words of a process that ended."""
        self._obey()
        if self._ended_at is not None:
            now = self._clock()
            quiet = now - max(self._ended_at, self._heard_at) > DRAIN_S
            self._over = self._over or quiet or now - self._ended_at > LONGEST_DRAIN_S
        if self._watch.elapsed() >= self._deadline:
            if self._cause is None:
                self._ask_to_end("timeout")
            else:
                self._over = True  # its container will be removed, which kills all in it
        if self._story.unheard_s() > self._linger_s:
            self._control.stop("killed")

    def _obey(self) -> None:
        cause = self._control.stop_cause
        if cause is None:
            self._freeze(self._control.to_be_frozen)
        elif self._cause is None:
            self._freeze(False)
            if cause == "given_back":
                self._ask_to_end(cause)
            else:
                self._end_now(cause)
        elif cause != "given_back":  # no time for the grace of what ended it first
            self._over = True

    def _freeze(self, wanted: bool) -> None:
        if wanted == self._control.frozen:
            return
        if wanted and self._engine.exec_state(self._exec_id).pid == 0:
            return  # still being started, which would fail in a frozen container: at the next look
        if wanted:
            self._engine.pause(self._cell.id)
            self._watch.stop()
        else:
            self._engine.unpause(self._cell.id)
            self._watch.resume()
        self._control.frozen = wanted

    def _ask_to_end(self, cause: str) -> None:
        """TERM to all that the job started, KILL after the grace; a program may write its checkpoint meanwhile."""
        self._cause = cause
        self._deadline = self._watch.elapsed() + self._grace_s
        self._cell.signal_job(signal.SIGTERM)

    def _end_now(self, cause: str) -> None:
        self._cause, self._over = cause, True

    def _look(self, exec_id: str, task: Task) -> None:
        if self._control.frozen:
            return
        self._check_disk(task)
        if self._ended_at is None and not self._engine.exec_state(exec_id).running:
            self._ended_at = self._clock()

    def _check_disk(self, task: Task) -> None:
        usage = self._cell.usage(most_inodes=MOST_INODES)
        problem = disk_problem(usage, most_bytes=task.disk)
        if problem and self._cause is None:
            self._note = problem
            self._end_now("disk_limit")

    def _final_state(self, exec_id: str) -> ExecState:
        """The engine hears of the end a moment after the stream's; a process that we leave running stays so."""
        ends = self._clock() + 5.0
        while (state := self._engine.exec_state(exec_id)).running and self._cause is None:
            if self._clock() > ends:
                raise EngineError(
                    "The Docker engine closed a program's output and does not say how it ended."
                )
            time.sleep(0.002)
        return state

    def _judged(self, state: ExecState, task: Task, *, oom_kills: int) -> Outcome:
        code, number = _code_and_signal(None if state.running else state.exit_code)
        cause, note = self._cause, self._note
        if state.pid == 0 and cause is None:
            return self._never_started(state)
        if cause is None:
            self._check_disk(task)
            cause, note = self._cause, self._note
        if cause is None and number == signal.SIGXFSZ:
            cause, note = "disk_limit", "The program wrote a file bigger than all it may write."
        if cause is None and oom_kills > 0:
            cause = "oom"
        elif cause is None and number == signal.SIGKILL:
            cause, note = self._killed_with_its_container()
        return Outcome(
            cause=cause, exit_code=code, signal=number, ran_s=round(self._watch.elapsed(), 3), note=note
        )

    def _killed_with_its_container(self) -> tuple[str | None, str]:
        """Cause and note if the whole container ended: no job can do that, but for using up its memory."""
        ends = self._clock() + SETTLE_S  # the program is dead a moment before its container counts as ended
        while self._clock() < ends:
            try:
                state = self._engine.state(self._cell.id)
            except ContainerGone:
                break
            if not state.running and state.out_of_memory:
                return "oom", ""  # the counter is gone with the container's group, but the engine remembers
            if not state.running:
                break
            time.sleep(0.05)
        else:
            return None, ""
        return "engine", "The job's container was ended from outside."

    def _never_started(self, state: ExecState) -> Outcome:
        """The engine's complaint came in place of the output: say it as a shell would, if the program is at fault."""
        said = self._story.take_stdout().decode("utf-8", "replace").strip()
        if not any(reason in said for reason in (*_MISSING, *_UNUSABLE)):
            raise EngineError(
                f"The Docker engine could not start a program: {said[:300] or 'it says nothing'}"
            )
        self._story.add_stderr(said.encode() + b"\n")
        missing = any(reason in said for reason in _MISSING)
        return Outcome(
            exit_code=_NOT_FOUND if missing else _NOT_EXECUTABLE, note="The program could not be started."
        )

    def _engine_broke(self, error: Exception) -> Outcome:
        if self._cause is not None:  # we were ending it anyway
            return Outcome(cause=self._cause, ran_s=round(self._watch.elapsed(), 3), note=self._note)
        return Outcome(cause="engine", ran_s=round(self._watch.elapsed(), 3), note=_reason(error))


def disk_problem(usage: Usage, *, most_bytes: int) -> str:
    """What is wrong with what a job wrote, in a sentence; empty when nothing is."""
    if usage.bytes > most_bytes:
        return f"The program wrote more than the {most_bytes >> 20} MiB that /out and /checkpoint may have."
    if usage.inodes > MOST_INODES:
        return f"The program made more than {MOST_INODES} files and folders in /out and /checkpoint."
    if usage.too_deep:
        return f"The program nested folders in /out or /checkpoint deeper than {folders.DEEPEST} levels."
    return ""


def _code_and_signal(code: int | None) -> tuple[int | None, int | None]:
    if code is not None and 128 < code < 160 and code - 128 not in _HARMLESS:
        return None, code - 128
    return code, None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
