"""The main process of every job container: a static program of a few hundred bytes that does nothing but wait.

It is put into the container read-only, so that an image needs nothing of its own to be kept open: not a shell, not
a `sleep`. It makes one system call for ever and takes no input. Generated here, because a compiler on the
volunteer's machine, or a binary in the source tree, would be more to trust than these bytes.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

_BASE = 0x400000  #: where the one segment is loaded
_HEADERS = 64 + 56  #: an ELF header and one program header

#: machine name as the kernel gives it -> (number in the ELF header, the program)
_PROGRAMS = {
    "x86_64": (
        62,
        bytes.fromhex(
            "b822000000"  # again: mov eax, 34   (pause)
            "0f05"  #              syscall
            "ebf7"  #              jmp again
        ),
    ),
    "aarch64": (
        183,
        bytes.fromhex(
            "000080d2"  # again: mov x0, 0    (ppoll of nothing, without a limit)
            "010080d2"  #        mov x1, 0
            "020080d2"  #        mov x2, 0
            "030080d2"  #        mov x3, 0
            "040080d2"  #        mov x4, 0
            "280980d2"  #        mov x8, 73
            "010000d4"  #        svc 0
            "f9ffff17"  #        b again
        ),
    ),
}


class NoSuchMachine(Exception):
    """There is no pause program for this kind of processor."""


def pause_program(machine: str) -> bytes:
    """The whole file for `machine` (x86_64, aarch64); raises NoSuchMachine."""
    if machine not in _PROGRAMS:
        raise NoSuchMachine(f"Job containers run on x86_64 and aarch64, not on {machine}.")
    number, code = _PROGRAMS[machine]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    readable_executable = 5
    segment = struct.pack("<IIQQQQQQ", 1, readable_executable, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code


def write_pause_program(path: Path, machine: str | None = None) -> Path:
    """Put the program at `path` (0755) unless it lies there already; returns `path`.

    The file system must allow programs to be run. Raises NoSuchMachine, OSError.
    """
    program = pause_program(machine or os.uname().machine)
    if path.is_file() and not path.is_symlink() and path.read_bytes() == program:
        return path
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(program)
        Path(name).chmod(0o755)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
