"""The fault run of CI: two minutes in which everything happens that may happen, then the checks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
#: Two minutes of faults, then the rest of the work: two minutes, and many times that where others use the processors.
LONGEST_S = 1200
STOP_S = 60


@pytest.mark.mongo
@pytest.mark.timeout(LONGEST_S + STOP_S + 30)
def test_nothing_is_lost_doubled_or_mixed_up_whatever_breaks(mongod_binary: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(TOP / "tests"), "DOCKERCOMP_MONGOD": str(mongod_binary)}
    argv = [sys.executable, "-m", "faults", "--minutes", "2", "--drain-minutes", "15"]
    story = tmp_path / "story"

    with story.open("wb") as out, subprocess.Popen(argv, env=env, cwd=TOP, stdout=out, stderr=out) as run:
        with suppress(subprocess.TimeoutExpired):
            run.wait(LONGEST_S)
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)  # it stops what it started
            run.wait(STOP_S)

    told = story.read_text()
    print(told)
    # The first line is the seed: scripts/chaos --seed N plays the same faults again.
    assert run.returncode == 0, f"{told[:200]}\n...\n{told[-20_000:]}"
