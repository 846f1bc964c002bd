"""A launcher in the background: start it and see its containers run; stop it and see it gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from client_container.launcher.clients.reconcile import Found
from client_container.launcher.errors import NotStarted, NotStopped
from client_container.launcher.state import StateFolder

LOOK_S = 0.25


def start(
    state: StateFolder,
    arguments: Sequence[str],
    running: Callable[[], Sequence[Found]],
    *,
    count: int,
    limit_s: float,
) -> int:
    """Start `up` with these arguments in the background; returns its pid once `count` containers run.

    `running` tells which do. Raises NotStarted, leaving nothing behind, if not all of them run in time.
    """
    state.folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "client_container.launcher",
        "up",
        f"--log-file={state.log_file}",
        *arguments,
    ]
    with state.error_file.open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
        )
    try:
        if _all_run(state, process, running, count=count, limit_s=limit_s):
            return process.pid
        raise NotStarted(_why(state, process, count=count, limit_s=limit_s))
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _all_run(
    state: StateFolder,
    process: subprocess.Popen[bytes],
    running: Callable[[], Sequence[Found]],
    *,
    count: int,
    limit_s: float,
) -> bool:
    """True once the same `count` containers ran at two looks: one that dies at its start is not running."""
    ends = time.monotonic() + limit_s
    before: set[str] = set()
    while process.poll() is None and time.monotonic() < ends:
        # Until it holds the lock, what runs may belong to an earlier launcher.
        if state.running_pid() == process.pid:
            now = {one.id for one in running()}
            if len(now) == count and now == before:
                return True
            before = now
        time.sleep(LOOK_S)
    return False


def _why(state: StateFolder, process: subprocess.Popen[bytes], *, count: int, limit_s: float) -> str:
    if process.poll() is not None:
        said = state.error_file.read_text(errors="replace").strip().splitlines()
        return said[-1].removeprefix("Error: ") if said else f"The launcher ended with {process.returncode}."
    text = state.log_file.read_text(errors="replace") if state.log_file.exists() else ""
    # Why one ended or was not started says more than that it was started again.
    complaints = [line for line in text.splitlines() if " INFO " not in line]
    last = f", and {state.log_file} says: {complaints[-1]}" if complaints else "."
    return f"Not all of {count} client containers ran within {limit_s:.0f} s{last}"


def stop(state: StateFolder, *, limit_s: float) -> bool:
    """Stop the running launcher and wait until it is gone; False if none ran. Raises NotStopped."""
    pid = state.running_pid()
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise NotStopped(f"The launcher (pid {pid}) belongs to another user.") from error
    ends = time.monotonic() + limit_s
    while state.running_pid() == pid:
        if time.monotonic() > ends:
            raise NotStopped(f"The launcher (pid {pid}) did not end within {limit_s:.0f} s.")
        time.sleep(LOOK_S)
    return True
