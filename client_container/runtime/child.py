"""Watching one child process to its end: its output, its deadline, and whoever wants it halted."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from client_container.runtime import Halt
from client_container.runtime.contract import STDERR_BYTES, STDOUT_BYTES

_READ = 64 * 1024
_NEVER = float("inf")
#: Seconds between two looks at a child where the kernel cannot wake us when it ends (no pidfd).
_LOOK_S = 0.02
#: Reads after the end, so that an escaped process that floods a pipe cannot hold us.
_LAST_READS = 64


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    exit_code: int | None  #: None when a signal ended it
    signal: int | None
    #: Why we ended it: timeout, output_limit, halted, or what `look` said; None: it ended by itself.
    cause: str | None
    stdout: bytes
    stderr: bytes  #: the last 8 KiB
    cpu_s: float  #: of the child and of those it waited for


class Watch:
    """One child that leads its own session, with pipes as stdout and stderr."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        halt: Halt,
        *,
        timeout_s: float,
        grace_s: float,
        look: Callable[[], str | None] | None = None,
        look_s: float = 0.5,
    ) -> None:
        """`look` is asked so often why the child has to end now; None: it may go on."""
        assert process.stdout and process.stderr
        self._process, self._halt, self._grace_s = process, halt, grace_s
        self._deadline = time.monotonic() + timeout_s
        self._look, self._look_s, self._next_look = look, look_s, time.monotonic() + look_s
        self._pipes: dict[IO[bytes], Callable[[bytes], None]] = {
            process.stdout: self._take_stdout,
            process.stderr: self._take_stderr,
        }
        self._stdout, self._stderr = bytearray(), bytearray()
        self._cause: str | None = None
        self._ended: tuple[int, Any] | None = None

    def run(self) -> Ending:
        """Wait for the end; kills what is left of the group afterwards."""
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, self._on_output)
            selector.register(self._halt.open(), selectors.EVENT_READ, self._on_halt)
            pidfd = _pidfd(self._process.pid)
            if pidfd is not None:
                selector.register(pidfd, selectors.EVENT_READ, self._on_exit)
            try:
                while self._ended is None:
                    self._wait(selector, polling=pidfd is None)
            finally:
                if self._ended is None:  # an error of ours must not leave the job running
                    self._kill(signal.SIGKILL)
                    self._collect(0)
                self._halt.close()
                if pidfd is not None:
                    os.close(pidfd)
        self._drain()
        return self._ending()

    def _wait(self, selector: selectors.BaseSelector, *, polling: bool) -> None:
        patience = max(0.0, self._deadline - time.monotonic())
        patience = min(patience, _LOOK_S if polling else 3600.0)
        if self._look is not None:
            patience = max(0.0, min(patience, self._next_look - time.monotonic()))
        for key, _ in selector.select(patience):
            key.data(selector, key.fileobj)
        if polling:
            self._collect(os.WNOHANG)
        if self._look is not None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._look_s
            self._on_look(self._look())
        if self._ended is None and time.monotonic() >= self._deadline:
            self._on_deadline()

    def _on_output(self, selector: selectors.BaseSelector, pipe: IO[bytes]) -> None:
        if self._read(pipe) == b"":
            selector.unregister(pipe)

    def _on_halt(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        selector.unregister(descriptor)
        self._cause = "halted"
        self._kill(signal.SIGKILL)

    def _on_exit(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        selector.unregister(descriptor)
        # The child is a zombie still, so that its group's number cannot be anyone else's.
        self._kill(signal.SIGKILL)
        self._collect(0)

    def _on_look(self, cause: str | None) -> None:
        if cause is not None and self._ended is None and self._cause in (None, "timeout"):
            self._cause, self._deadline = cause, _NEVER
            self._kill(signal.SIGKILL)

    def _on_deadline(self) -> None:
        if self._cause is None:
            self._cause = "timeout"
            self._deadline = time.monotonic() + self._grace_s
            self._kill(signal.SIGTERM)
        else:
            self._deadline = _NEVER
            self._kill(signal.SIGKILL)

    def _read(self, pipe: IO[bytes]) -> bytes | None:
        """Read once; empty at the end of the pipe, None when nothing is there yet."""
        try:
            data = os.read(pipe.fileno(), _READ)
        except BlockingIOError:
            return None
        self._pipes[pipe](data)
        return data

    def _take_stdout(self, data: bytes) -> None:
        room = STDOUT_BYTES - len(self._stdout)
        self._stdout += data[:room]
        if len(data) > room and self._cause in (None, "timeout"):
            self._cause, self._deadline = "output_limit", _NEVER
            self._kill(signal.SIGKILL)

    def _take_stderr(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-STDERR_BYTES]

    def _drain(self) -> None:
        """Read what the child wrote before it ended; not what an escaped one may go on writing."""
        for pipe in self._pipes:
            for _ in range(_LAST_READS):
                if not self._read(pipe):
                    break
            pipe.close()

    def _collect(self, options: int) -> None:
        pid, status, usage = os.wait4(self._process.pid, options)
        if pid:
            self._kill(signal.SIGKILL)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self._ended = (self._process.returncode, usage)

    def _kill(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _ending(self) -> Ending:
        assert self._ended
        code, usage = self._ended
        return Ending(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cause=self._cause,
            stdout=bytes(self._stdout),
            stderr=bytes(self._stderr),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 3),
        )


def _pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def reap_strays() -> None:
    """As process 1 of a container without an init we inherit orphans: collect those that ended."""
    if os.getpid() == 1:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
