"""Programs that a test starts again and again: one process imports what they need, and each start is a fork of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

#: Imports the module of that name, then forks for each message: a list of arguments for its `main`, with where its
#: stdout and stderr go. Answers the number of the new process.
PARENT = """
import importlib, json, os, signal, socket, sys, traceback
module = importlib.import_module(sys.argv[2])
line = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    said, (out, err), *_ = socket.recv_fds(line, 100_000, 2) if line.recv(1, socket.MSG_PEEK) else sys.exit()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        line.close()
        os.dup2(out, 1), os.dup2(err, 2)
        os.closerange(3, 1000)
        try:
            module.main(*json.loads(said))
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.close(out), os.close(err)
    line.sendall(str(child).encode().ljust(20))
"""


class Child:
    """A process that was started so; the calls are those of a `subprocess.Popen` with its stdout as text."""

    def __init__(self, pid: int, stdout: IO[str]) -> None:
        self.pid, self.stdout = pid, stdout

    def poll(self) -> int | None:
        """None while it runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return None
        return 0

    def kill(self) -> None:
        """kill -9."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """The rest of what it wrote, once it has ended."""
        with self.stdout:
            return self.stdout.read(), None


class Forks:
    """Starts processes that run `main` of a module in `folder`."""

    def __init__(self, folder: Path, module: str) -> None:
        self._line, theirs = socket.socketpair()
        paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-c", PARENT, str(theirs.fileno()), module],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": paths},
            )

    def start(self, *arguments: str, stderr: IO[Any]) -> Child:
        """One more of them, with these arguments."""
        readable, writable = os.pipe()
        try:
            socket.send_fds(self._line, [json.dumps(arguments).encode()], [writable, stderr.fileno()])
        finally:
            os.close(writable)
        pid = self._line.recv(20, socket.MSG_WAITALL)
        assert pid, "what the program needs could not be imported"
        return Child(int(pid), os.fdopen(readable))

    def close(self) -> None:
        """No more of them; those that run are the caller's to end."""
        self._line.close()
        self._parent.wait(60)
