"""Wrong clocks, by libfaketime."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

HOUR_S = 3600
_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")
_FAKED = Path(__file__).parent / "faked"  #: what makes Python's own sleep work under it


class NoFaketime(Exception):
    """There is no libfaketime on this machine; the message is one sentence."""


@lru_cache(maxsize=1)
def find_library() -> Path:
    """The library for programs with threads; raises NoFaketime."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")):
            return found
    raise NoFaketime("Wrong clocks need libfaketime (Debian's package libfaketime).")


def shifted(seconds: int, python_path: Path) -> dict[str, str]:
    """The variables with which a Python program's calendar is wrong by so much; its durations stay right."""
    if not seconds:
        return {"PYTHONPATH": str(python_path)}
    return {
        "PYTHONPATH": os.pathsep.join((str(_FAKED), str(python_path))),
        "LD_PRELOAD": str(find_library()),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
