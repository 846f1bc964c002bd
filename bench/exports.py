"""How much memory the web processes take while several whole exports run at once, and how fast those are.

    python -m bench.exports --rows 2000000 --exports 4

Starts a server of its own in a temporary folder, lays a complete task into its database, measures the web processes'
memory (PSS, all of them together) when idle after one small export, then at its highest during the exports, and counts
the rows that arrived. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import requests

from bench import laying
from bench.server import end_on_sigterm, serving
from source_server.domain import transitions as rules
from source_server.domain.account import Role
from source_server.domain.attempt import Attempt, Origin, Outcome
from source_server.domain.chunk import Candidate, Chunk
from source_server.domain.job import Job
from source_server.domain.task import Task, TaskOutcome, TaskState, Upload
from source_server.server_home import ServerHome
from source_server.services.accounts.people import People
from source_server.stores.attempts import result_document
from source_server.stores.database import Stores

PAIRS_PER_CHUNK = 1000
BATCH = 200


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--exports", type=int, default=4)
    options = parser.parse_args()
    end_on_sigterm()
    print(json.dumps(measure(options.rows, options.exports), indent=1))


def measure(rows: int, exports: int) -> dict[str, float]:
    """The figures for so many exports of so many rows at once; memory in MB."""
    with serving() as served:
        stores = served.stores()
        key = People(stores).add("bench", Role.ADMIN)
        small, large = lay(stores, PAIRS_PER_CHUNK * 10), lay(stores, rows)
        return run(served.url, key, small, large, exports, served.home)


def run(url: str, key: str, small: str, large: str, exports: int, home: ServerHome) -> dict[str, float]:
    """Download and watch."""
    for _ in range(8):  # every web process has had its first export by now
        download(url, key, small)
    runner = home.find_runner()
    assert runner is not None and runner.pid is not None
    workers = web_processes(runner.pid)
    idle = highest = memory_mb(workers)
    counts: list[int] = []
    began = time.monotonic()
    threads = [
        threading.Thread(target=lambda: counts.append(download(url, key, large))) for _ in range(exports)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        highest = max(highest, memory_mb(workers))
        time.sleep(0.2)
    seconds = time.monotonic() - began
    return {
        "rows_each": min(counts),
        "exports": len(counts),
        "idle_mb": round(idle, 1),
        "highest_mb": round(highest, 1),
        "above_idle_mb": round(highest - idle, 1),
        "seconds": round(seconds, 1),
        "rows_per_s": round(sum(counts) / seconds),
    }


def download(url: str, key: str, task: str) -> int:
    """Rows received of a whole export."""
    with requests.get(
        f"{url}/results.csv",
        params={"task": task},
        headers={"Authorization": f"Bearer {key}"},
        stream=True,
        timeout=60,
    ) as answer:
        answer.raise_for_status()
        return sum(piece.count(b"\n") for piece in answer.iter_content(256 * 1024)) - 1


def lay(stores: Stores, rows: int) -> str:
    """A complete task of so many rows, with a result for each chunk; its id."""
    now = stores.clock.now()
    chunks = rows // PAIRS_PER_CHUNK
    upload = Upload(id="bench", attempt="bench", complete=True, touched=now, chunks=chunks, rows=rows)
    task = Task(
        id=uuid.uuid4().hex[:16],
        project="bench",
        owner="bench",
        name="bench",
        job=Job(action=("bench",)),
        created=now,
        rows_per_chunk=PAIRS_PER_CHUNK,
        state=TaskState.COMPLETE,
        outcome=TaskOutcome.SUCCEEDED,
        sealed=True,
        fields=("a", "b"),
        upload=upload,
    )
    stores.tasks.add(task)
    for begin in range(0, chunks, BATCH):
        made = [filled(task, n) for n in range(begin, min(begin + BATCH, chunks))]
        documents = [result_document(attempt_of(chunk), ORIGIN, chunk, now) for chunk in made]
        stores.results.put(documents)
        stores.chunks.add(
            [settled(chunk, document["_id"]) for chunk, document in zip(made, documents, strict=True)]
        )
    return task.id


ORIGIN = Origin(container=str(uuid.uuid4()), host=str(uuid.uuid4()), account="bench")


def filled(task: Task, n: int) -> Chunk:
    """A chunk of pairs."""
    first = n * PAIRS_PER_CHUNK
    rows = ", ".join(
        f'{{"a": "{2 * row + 1}", "b": "{2 * row + 2}"}}' for row in range(first, first + PAIRS_PER_CHUNK)
    )
    [chunk] = laying.ready_chunks(task, n, 1)
    text = f'{{"rows": [{rows}], "first_row": {first}}}'
    return replace(chunk, input=text, rows=PAIRS_PER_CHUNK, first_row=first)


def settled(chunk: Chunk, result: str) -> Chunk:
    """The chunk with that result accepted."""
    candidate = Candidate(
        result=result, account=ORIGIN.account, host=ORIGIN.host, container=ORIGIN.container, digest=""
    )
    return rules.accept(rules.propose(chunk, candidate), result)


def attempt_of(chunk: Chunk) -> Attempt:
    """The right answer to it."""
    from datetime import datetime, timezone

    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    lines = "".join(f"{4 * row + 3}\n" for row in range(chunk.first_row, chunk.first_row + PAIRS_PER_CHUNK))
    return Attempt(
        chunk=chunk.id,
        run=0,
        token=str(uuid.uuid4()),
        ticket="bench",
        outcome=Outcome.OK,
        exit_code=0,
        signal=None,
        stdout=lines,
        stderr_tail="",
        started=moment,
        ended=moment,
        cpu_s=0.1,
        runtime="process",
        image=None,
    )


def web_processes(supervisor: int) -> list[int]:
    """The process ids of gunicorn's workers below this supervisor."""
    found, seen = [], [supervisor]
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    while seen:
        pid = seen.pop()
        seen += parents.get(pid, [])
        if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return found


def memory_mb(processes: list[int]) -> float:
    """Proportional set size of these processes together."""
    total = 0
    for pid in processes:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


if __name__ == "__main__":
    main()
