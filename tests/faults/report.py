"""What people see: progress while it runs, and a summary at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from faults.director import Director
from faults.ledger import Ledger
from faults.workload import Workload

EVERY_S = 5.0
RATE_OVER_S = 30.0


def say(text: str) -> None:
    """A line for the eyes, not for a pipe."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A line now and then: how much is done, how fast, and how long it may take still."""

    def __init__(self, ledger: Ledger, director: Director) -> None:
        self._ledger, self._director = ledger, director
        self._began = time.monotonic()
        self._shown = 0.0
        self._past: list[tuple[float, int]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self._began

    def show(self, work: Workload) -> None:
        """Say it, if it is time."""
        now, done = self.elapsed_s, self._ledger.answered
        if now - self._shown < EVERY_S:
            return
        self._shown = now
        self._past = [*(one for one in self._past if now - one[0] <= RATE_OVER_S), (now, done)]
        since, before = self._past[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        left = f", about {(work.total - done) / rate:.0f} s to go" if rate and done < work.total else ""
        faults = f"faults {sum(self._director.done.values())} of {self._director.planned}"
        say(f"{now:5.0f} s  chunks {done} of {work.total}, {rate:.0f}/s{left}; {faults}")


def summary(
    faults: Mapping[str, int], mischief: Mapping[str, int], ledger: Ledger, stored: Mapping[str, Any]
) -> str:
    """The counts of a run, one subject a line."""
    subjects: dict[str, Mapping[Any, int]] = {
        "faults": faults,
        "requests": mischief,
        "answers": _by_status(ledger),
        **{name: counts for name, counts in stored.items() if counts},
    }
    lines = [f"{name}: {_counts(counts)}" for name, counts in subjects.items()]
    forged = sum(said.status == 403 for said in ledger.refused)
    lines.append(
        f"attempts: {len(ledger.sent)} sent, {len(ledger.acknowledged)} acknowledged, {forged} forged and refused"
    )
    return "\n".join(lines)


def _by_status(ledger: Ledger) -> Counter[str]:
    return Counter({f"{call} {status}": n for (call, status), n in ledger.statuses.items()})


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
