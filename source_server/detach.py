"""Leave the server running behind: start it in a session of its own and wait until it answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from source_server.assembly import answers
from source_server.config import Settings
from source_server.server_home import CannotStart, ServerHome, already_running, require_disk
from source_server.supervisor import StartFailed

_LOG_LIMIT_BYTES = 10_000_000
_STOP_WITHIN_S = 60.0
#: How click begins the one sentence of a command that was refused.
_REFUSAL = "Error: "
#: How Python ends the traceback of a part that failed, dotted name first.
_CAUSE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Unknown|Unavailable)\b")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A server that answers, left running."""

    url: str
    pid: int
    log: Path


def run_detached(settings: Settings, argv: Sequence[str], *, within_s: float = 60.0) -> Started:
    """Run `argv` (the same server in the foreground) in a new session, until its /healthz answers 200.

    Raises CannotStart when a server runs already, StartFailed with the server's own sentence, or its last
    line, when it does not answer within `within_s` seconds; then all that it had started is stopped.
    """
    home = ServerHome(settings.server_home)
    require_disk(home.path, settings.min_free_mb)
    runner = home.find_runner()
    if runner is not None:
        raise already_running(home.path, runner.pid)
    log_start = _open_log(home)
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_env(settings),
        )
    try:
        return Started(url=_await_answer(home, process, within_s, log_start), pid=process.pid, log=home.log)
    except BaseException:
        _end(process)
        raise


def _env(settings: Settings) -> dict[str, str]:
    return {**os.environ, "DOCKERCOMP_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}


def _open_log(home: ServerHome) -> int:
    """Make the log, keeping at most one old one beside it; its size in bytes now."""
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        if home.log.exists() and home.log.stat().st_size > _LOG_LIMIT_BYTES:
            home.log.replace(home.log.with_suffix(".log.1"))
        home.log.touch(mode=0o600)
        return home.log.stat().st_size
    except OSError as error:
        raise CannotStart(f"The log {home.log} cannot be written: {error.strerror}.") from error


def _await_answer(home: ServerHome, process: subprocess.Popen[bytes], within_s: float, log_start: int) -> str:
    deadline = time.monotonic() + within_s
    while True:
        if process.poll() is not None:
            raise StartFailed(_last_words(home.log, log_start))
        # This very process records the address once it is ready: a stranger on the port does not count.
        url = home.find_url()
        if url is not None and answers(url):
            return url
        if time.monotonic() > deadline:
            raise StartFailed(f"No answer after {within_s:g} s. {_last_words(home.log, log_start)}")
        time.sleep(0.1)


def _last_words(log: Path, start: int) -> str:
    """The server's own sentence when it was refused, else one with the last line that it wrote."""
    with log.open("rb") as stream:
        stream.seek(start)
        lines = [line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix(_REFUSAL) for line in lines if line.startswith(_REFUSAL)]
    causes = [line for line in lines if _CAUSE.match(line)]
    if said and causes:
        return f"{said[-1]} The log {log} says: {causes[-1]}"
    if said:
        return said[-1]
    last = lines[-1] if lines else "nothing"
    return f"The source server did not start; the last line of {log} is: {last}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop what was started; its children die with it even when it must be killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_WITHIN_S)
        return
    sys.stderr.write("The server does not stop; it is killed.\n")
    process.kill()
    process.wait()
