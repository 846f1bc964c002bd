"""Tie a child process to its parent: when the parent dies, however it dies, the child is killed.

The child starts as this file, which asks the kernel for the tie and then becomes the program
(exec keeps it). A `preexec_fn` would do the same, but is unsafe once the parent has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` as a child which cannot outlive the calling process (Linux only).

    The tie is to the *thread* that starts the command: start it from one that lives as long as the
    child should. Elsewhere than on Linux the command runs untied.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _tie_to(parent: int) -> None:
    """Ask to be killed when the parent ends; exit at once if it already has."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def main(argv: Sequence[str]) -> None:
    """Become `argv[1:]`, tied to the process with the id `argv[0]`; 127 if there is no such program."""
    _tie_to(int(argv[0]))
    # Python ignores these two, and a program would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[1], list(argv[1:]))  # noqa: S606  # the whole point: no shell, same process
    except OSError as error:
        sys.stderr.write(f"{argv[1]} cannot be run: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
