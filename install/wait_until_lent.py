"""Wait until all client containers are registered: wait_until_lent.py COMMAND CONTAINERS SECONDS.

Exit code 0 when they are; else 1 and a sentence of what is missing, in the launcher's own words.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

LOOK_S = 0.3


def main(command: str, containers: int, seconds: float) -> int:
    ends = time.monotonic() + seconds
    while True:
        done = subprocess.run([command, "status", "--json"], capture_output=True, text=True, check=False)
        status = json.loads(done.stdout) if done.returncode == 0 else {}
        if is_lent(status, containers):
            return 0
        if time.monotonic() >= ends:
            print(missing(status, containers, seconds) if status else done.stderr.strip(), file=sys.stderr)
            return 1
        time.sleep(LOOK_S)


def is_lent(status: Mapping[str, Any], containers: int) -> bool:
    """Whether as many run as were asked for, and all of them are known to the server."""
    return bool(status) and status["running"] == status["registered"] == status["wanted"] == containers


def missing(status: Mapping[str, Any], containers: int, seconds: float) -> str:
    """What is not as it should be."""
    counted = (
        f"{status['running']} of {containers} client containers run and {status['registered']} are registered"
    )
    problems = [str(one) for one in status["problems"].values()]
    return " ".join([f"After {seconds:.0f} s {counted}.", *problems])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
