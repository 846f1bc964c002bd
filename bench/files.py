"""How much memory the web processes take while gigabytes of files go through: in, to those who compute, and out again.

    python -m bench.files --mb 5000 --chunk-mb 50 --out-mb 5 --clients 2

Starts a server of its own in a temporary folder and client processes of its own, brings a file for each chunk, has
every chunk hash its file and leave another one behind, and fetches those. Meanwhile the web processes' memory (PSS, all
of them together) is looked at. Ends with exit code 1 when a hash is wrong, or when memory was not flat. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.exports import memory_mb, web_processes
from bench.server import Served, end_on_sigterm, machine, serving
from dockercomp.api import Server
from dockercomp.wishes import Job, NewTask
from source_server.domain.account import Role
from source_server.services.accounts.people import People

MB = 1_000_000
ABOVE_IDLE_MB = 60.0  #: of all web processes together: buffers of those who read and write at once
GROWTH_MB = 15.0  #: from the first half to the second: what grows with the amount, would show here
EVERY_S = 0.2
LEAST_LOOKS = 5  #: in each half: of fewer, one may have come between two files and the other amid one
SETTINGS = {"DOCKERCOMP_BLOB_QUOTA_MB": "100000", "DOCKERCOMP_FILES_MB": "500"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to go through."""

    mb: int
    chunk_mb: int
    out_mb: int
    clients: int

    @property
    def chunks(self) -> int:
        """How many."""
        return max(1, self.mb // self.chunk_mb)


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=5000, help="10^6 bytes of input files in all")
    parser.add_argument("--chunk-mb", type=int, default=50, help="of each chunk")
    parser.add_argument("--out-mb", type=int, default=5, help="of the file that each chunk leaves")
    parser.add_argument("--clients", type=int, default=2)
    end_on_sigterm()
    figures = measure(Wanted(**vars(parser.parse_args())))
    print(json.dumps(figures, indent=1))
    raise SystemExit(0 if is_flat(figures) else 1)


def is_flat(figures: dict[str, Any]) -> bool:
    """Whether memory did not grow with what went through, and all of it was right."""
    flat = figures["above_idle_mb"] <= ABOVE_IDLE_MB and figures["growth_mb"] <= GROWTH_MB
    return bool(flat and figures["right"] == figures["chunks"])


def measure(wanted: Wanted) -> dict[str, Any]:
    """The figures; memory in MB (2^20 bytes)."""
    os.environ.update(SETTINGS)
    with serving() as served, _folder() as folder:
        stores = served.stores()
        scientist = Server(served.url, People(stores).add("bench", Role.SCIENTIST))
        volunteer = People(stores).add("lender", Role.VOLUNTEER)
        passage = Passage(wanted, scientist, folder)
        passage.warm_up()
        with Watched(served) as watched:
            figures = passage.bring(watched)
            with clients(wanted.clients, served.url, volunteer, folder):
                figures |= passage.compute(watched)
            figures |= passage.fetch(watched)
        return {**machine(), "chunks": wanted.chunks, "mb": wanted.mb, **figures, **watched.figures()}


class Watched:
    """Looks at the web processes' memory all the time."""

    def __init__(self, served: Served) -> None:
        runner = served.home.find_runner()
        assert runner is not None and runner.pid is not None
        self._workers = web_processes(runner.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.idle = memory_mb(self._workers)
        self.series: list[tuple[str, float]] = []
        self.phase = ""

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.series.append((self.phase, memory_mb(self._workers)))

    def figures(self) -> dict[str, Any]:
        """Idle, highest, and how much higher it was in any phase's second half than in its first."""
        phases: dict[str, list[float]] = {}
        for phase, size in self.series:
            phases.setdefault(phase, []).append(size)
        halves = [(sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]) for sizes in phases.values()]
        growth = max(
            (max(second) - max(first) for first, second in halves if len(first) >= LEAST_LOOKS), default=0.0
        )
        highest = max(size for _, size in self.series)
        return {
            "idle_mb": round(self.idle, 1),
            "highest_mb": round(highest, 1),
            "above_idle_mb": round(highest - self.idle, 1),
            "growth_mb": round(growth, 1),
            "by_phase_mb": {
                phase: [round(min(sizes), 1), round(max(sizes), 1)] for phase, sizes in phases.items()
            },
            "looks": len(self.series),
        }


class Passage:
    """The files on their way."""

    def __init__(self, wanted: Wanted, scientist: Server, folder: Path) -> None:
        self._wanted, self._scientist, self._folder = wanted, scientist, folder
        self._hashes: list[str] = []
        self._task = ""

    def warm_up(self) -> None:
        """Every thread of the web processes has had a file before memory is looked at."""
        path = self._folder / "warm"
        for number in range(24):
            path.write_bytes(random.Random(-number - 1).randbytes(3 * MB))
            sha256 = self._scientist.put_file(path)
            self._scientist.fetch_blob(sha256, 3 * MB, self._folder / "warm.back")

    def bring(self, watched: Watched) -> dict[str, Any]:
        """A file for each chunk goes to the server, one at a time on this disk."""
        watched.phase = "bring"
        began, path = time.monotonic(), self._folder / "file"
        for number in range(self._wanted.chunks):
            with path.open("wb") as out:
                dice = random.Random(number)
                for _ in range(self._wanted.chunk_mb):
                    out.write(dice.randbytes(MB))
            self._hashes.append(self._scientist.put_file(path))
            _say(f"brought {number + 1} of {self._wanted.chunks}")
        path.unlink()
        return {"bring_s": round(time.monotonic() - began, 1)}

    def compute(self, watched: Watched) -> dict[str, Any]:
        """A task with a row for each file runs to its end."""
        watched.phase = "compute"
        began, rows = time.monotonic(), self._folder / "rows.csv"
        with rows.open("w", newline="") as out:
            csv.writer(out).writerows([("sha256",), *((one,) for one in self._hashes)])
        self._scientist.add_project("bench")
        action = ["/bin/sh", str(self._folder / "job.sh"), str(self._wanted.out_mb)]
        job = Job(action=action, inputs={"part.bin": "{sha256}"}, outputs=["*.bin"], timeout_s=600)
        self._task = self._scientist.make_task("bench", NewTask(main=job))["id"]
        self._scientist.upload(self._task, rows)
        self._scientist.assign("bench")
        while not (progress := self._scientist.progress(self._task)).ended:
            _say(f"computed {progress.done} of {progress.total}")
            time.sleep(1)
        return {"compute_s": round(time.monotonic() - began, 1), "outcome": progress.outcome}

    def fetch(self, watched: Watched) -> dict[str, Any]:
        """The files that the chunks left come back, and say the same as the answers."""
        watched.phase = "fetch"
        began, right, target = time.monotonic(), 0, self._folder / "back"
        table = self._folder / "results.csv"
        self._scientist.download_results(table, task=self._task)
        with table.open(newline="") as lines:
            answers = {int(row["n"]): row["answer"].split() for row in csv.DictReader(lines)}
        for one in self._scientist.result_files(self._task):
            self._scientist.fetch_blob(one["sha256"], one["bytes"], target)
            right += answers[one["n"]] == [self._hashes[one["n"]], one["sha256"]] and (
                hashlib.sha256(target.read_bytes()).hexdigest() == one["sha256"]
            )
            target.unlink()
        return {"fetch_s": round(time.monotonic() - began, 1), "right": right}


JOB = """\
set -eu
head -c "${1}000000" "$DOCKERCOMP_IN/part.bin" >"$DOCKERCOMP_OUT/left.bin"
echo $(sha256sum <"$DOCKERCOMP_IN/part.bin" | cut -c 1-64) $(sha256sum <"$DOCKERCOMP_OUT/left.bin" | cut -c 1-64)
"""


@contextmanager
def clients(count: int, url: str, key: str, folder: Path) -> Iterator[None]:
    """So many client processes that run this bench's job and nothing else."""
    (folder / "job.sh").write_text(JOB)
    (folder / "key").write_text(key)
    env = {
        **os.environ,
        "DOCKERCOMP_SERVER": url,
        "DOCKERCOMP_KEY_FILE": str(folder / "key"),
        "DOCKERCOMP_ALLOW": json.dumps([["/bin/sh", str(folder / "job.sh")]]),
        "DOCKERCOMP_FILES": str(folder / "cache"),
    }
    started = []
    for number in range(count):
        own = {**env, "DOCKERCOMP_HOME": str(folder / f"client-{number}")}
        with (folder / f"client-{number}.log").open("wb") as log:
            command = [sys.executable, "-m", "client_container"]
            started.append(subprocess.Popen(command, env=own, stdout=log, stderr=log))
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that jobs of another user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-bench-files-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
