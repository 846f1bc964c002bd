"""The scientist: tasks with known answers, sent in through the public API for as long as they are wanted."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from faults.job import answer
from faults.ledger import Ledger
from faults.programs import CannotGoOn
from faults.roster import HONEST_IMAGE

PROJECT = "instrument"
TIMEOUT_S = 4.0  #: of a job: leases end 60 s, one beat and this much after they began
ROWS = 400  #: chunks of a task
BACKLOG = 1200  #: open chunks that there should be
UNSENT = 2  #: uploads that broke off and are tried again, at most
QUORUM_SHARE = 0.25  #: of tasks
QUORUM = {"quorum": 2, "replicas": 2, "distinct": "account"}
ANSWER_S = 20.0
LOOK_S = 3.0  #: between two looks at the tasks


class Given:
    """What was asked: right answers by chunk, and the tasks."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.tasks: list[str] = []
        self.quorum_tasks: set[str] = set()

    def add(self, task: str, rows: Sequence[tuple[int, int]], *, quorum: bool) -> None:
        """A task was given."""
        self.answers.update({f"{task}.{n}": answer(a, b) for n, (a, b) in enumerate(rows)})
        self.tasks.append(task)
        if quorum:
            self.quorum_tasks.add(task)


class Scientist:
    """Calls the servers, and calls again until one of them answers."""

    def __init__(self, servers: Sequence[int], key: str, stopping: threading.Event) -> None:
        self._servers, self._stopping, self._at = list(servers), stopping, 0
        self._headers = {"Authorization": f"Bearer {key}"}

    def call(self, method: str, path: str, *, allow: Sequence[int] = (), **rest: Any) -> Any:
        """The answer's JSON; raises CannotGoOn for a refusal that is not among `allow`, or when stopped."""
        return self.ask(method, path, allow=allow, **rest).json()

    def ask(self, method: str, path: str, *, allow: Sequence[int] = (), **rest: Any) -> requests.Response:
        """The answer."""
        headers = {**self._headers, **rest.pop("headers", {})}
        while not self._stopping.is_set():
            try:
                url = f"http://127.0.0.1:{self._servers[self._at]}{path}"
                found = requests.request(method, url, headers=headers, timeout=ANSWER_S, **rest)
            except requests.RequestException:
                found = None
            if found is not None and (found.ok or found.status_code in allow):
                return found
            if found is not None and found.status_code not in (408, 429, 503):
                raise CannotGoOn(f"{method} {path}: {found.status_code} {found.text[:300]}")
            self._at = (self._at + 1) % len(self._servers)
            time.sleep(0.5)
        raise CannotGoOn("the run was stopped")


class Workload:
    """Keeps a backlog of chunks until told to finish; in a thread of its own."""

    def __init__(
        self, scientist: Scientist, ledger: Ledger, program: Path, *, seed: int, chunks: int
    ) -> None:
        self.given = Given()
        self.failure: Exception | None = None
        self._scientist, self._ledger, self._program = scientist, ledger, program
        self._dice = random.Random(f"{seed}/workload")
        self._chunks, self._look_at = chunks, 0.0
        self.helped: Counter[str] = Counter()
        self._unsent: list[tuple[str, str]] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def enough(self) -> None:
        """No more than the chunks that were asked for at least, from now on."""
        self._enough.set()

    def done(self) -> bool:
        """Whether all chunks were given and every task has succeeded; what was set aside meanwhile is sent again."""
        if not self._enough.is_set() or self._thread.is_alive() or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_S
        left = self._unfinished()
        for report in left:
            self._help(report)
        return not left

    def state(self) -> str:
        """The tasks that are not complete, with the states of their chunks."""
        return "; ".join(f"{one['id']} {one['state']}: {one['chunks']}" for one in self._unfinished())

    def _unfinished(self) -> list[dict[str, Any]]:
        reports = [self._scientist.call("GET", f"/tasks/{task}") for task in self.given.tasks]
        return [one for one in reports if one["outcome"] != "succeeded"]

    def _help(self, report: dict[str, Any]) -> None:
        """Do what a scientist does: resume a task that paused itself, send chunks again that failed everywhere."""
        if report["paused"]:
            self.helped["tasks resumed"] += 1
            self._scientist.call("POST", f"/tasks/{report['id']}/resume")
        if report["chunks"].get("quarantined"):
            sent = self._scientist.call("POST", "/errors/requeue", json={"task": report["id"]})["sent"]
            self.helped["chunks sent again"] += sent

    @property
    def total(self) -> int:
        """How many chunks there are, or will be at least."""
        return max(self._chunks, len(self.given.answers))

    def _run(self) -> None:
        try:
            self._scientist.call("POST", "/projects", json={"name": PROJECT})
            while self._unsent or not (self._enough.is_set() and len(self.given.answers) >= self._chunks):
                enough = (
                    len(self.given.answers) - self._ledger.answered >= BACKLOG or len(self._unsent) > UNSENT
                )
                if enough:
                    time.sleep(0.5)
                else:
                    self._unsent.append(self._make_task())
                self._unsent = [one for one in self._unsent if not self._send(*one)]
        except Exception as error:
            self.failure = error

    def _make_task(self) -> tuple[str, str]:
        """A new task's id, and its data as CSV."""
        quorum = self._dice.random() < QUORUM_SHARE
        rows = [(self._dice.randrange(10**6), self._dice.randrange(10**6)) for _ in range(ROWS)]
        body: dict[str, Any] = {"action": [str(self._program), "{a}", "{b}"], "timeout_s": TIMEOUT_S}
        body |= {"validation": QUORUM} if quorum else {"image": HONEST_IMAGE}
        task = self._scientist.call("POST", f"/projects/{PROJECT}/tasks", json=body)["id"]
        self.given.add(task, rows, quorum=quorum)
        return task, "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)

    def _send(self, task: str, data: str) -> bool:
        """Upload and start; False when a server died over the upload: for a minute nobody else may try."""
        path, headers = f"/tasks/{task}/chunks/all", {"Content-Type": "text/csv"}
        if self._scientist.ask("PUT", path, data=data, headers=headers, allow=[409]).status_code == 409:
            return False
        if self._dice.random() < 0.5:
            self._scientist.call("POST", f"/tasks/{task}/start", allow=[409])
        else:
            self._scientist.call("POST", f"/assign/{PROJECT}")
        return True
