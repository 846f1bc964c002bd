"""Reactions survive kill -9 of the server before each of the writes that they are made of."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from people import Scientist, Volunteer
from product import free_port

SERVER = Path(__file__).parent / "dying_server.py"
JOBS = {
    name: {"action": ["/bin/report", name, "{task}"], "timeout_s": 1.0}
    for name in ("success", "failure", "after")
}


class Dying:
    """The server as a process of its own; who calls it while it is dead starts it again, and says the same again."""

    def __init__(self, uri: str, database: str) -> None:
        self._uri, self._database = uri, database
        self.deaths = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self, write: str = "", nth: int = 0) -> None:
        """Begin to serve; with `nth` it dies before the nth write of that kind."""
        self.port = free_port()
        argv = [sys.executable, str(SERVER), self._uri, self._database, str(self.port), write, str(nth)]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.startswith("killed"):
            self.deaths += 1
            self.start()

    def stop(self) -> None:
        """Kill it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            said, _ = self._process.communicate(timeout=60)
            self.deaths += "killed" in said.splitlines()

    def open(self, path: str, *, method: str, headers: dict[str, str], **rest: Any) -> Any:
        """As a test client's, over the network."""
        for _ in range(600):
            try:
                return _Answer(
                    requests.request(
                        method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=60, **rest
                    )
                )
            except requests.ConnectionError:
                assert self._process is not None
                if self._process.poll() is not None:
                    self.stop()
                    self.start()
                time.sleep(0.05)
        raise AssertionError("the server does not come back")

    def test_client(self) -> Dying:
        """It is its own."""
        return self


class _Answer:
    def __init__(self, answer: requests.Response) -> None:
        self.status_code, self.text = answer.status_code, answer.text
        self.get_json: Callable[[], Any] = answer.json


@pytest.fixture
def dying(mongo_uri: str, raw: Any) -> Iterator[Dying]:
    server = Dying(mongo_uri, raw.name)
    yield server
    server.stop()


def work(who: Volunteer, scientist: Scientist, task: str) -> list[str]:
    """Compute what is handed out until the reactions have ended; the reactions' chunks, in the order of answering."""
    deadline, answered = time.monotonic() + 300, list[str]()
    while True:
        shown = scientist.ok("GET", f"/tasks/{task}")
        if shown["state"] == "complete" and not shown["reacting"]:
            return answered
        assert time.monotonic() < deadline, f"the reactions do not end: {shown}"
        for chunk in who.claim(1):
            if chunk["id"] not in answered:
                answered.append(chunk["id"])
            while who.add(who.attempt(chunk)).status_code == 503:
                time.sleep(0.05)
        time.sleep(0.02)


#: What is written, from the last answer to the end of the reactions, and how often at least.
WRITES = {
    "put_if_absent of results": 3,  # the answers: of the last chunk, of both reactions
    "guarded of chunks": 5,  # they are accepted; and the leases of both reactions
    "update_many of results": 3,  # their verdicts
    "update_one of tasks": 4,  # the decision; the companions are complete; the reactions have ended
    "insert of blobs": 1,  # the tables
    "put_if_absent of chunks": 2,  # the companions' chunks
    "put_if_absent of tasks": 2,  # the companions, which run from then on
}
MOST = 40  #: writes of one kind, at most: housekeeping may repeat what a request does


@pytest.mark.parametrize("write", WRITES)
def test_reactions_survive_kill_9_of_the_server_before_every(
    write: str, scientist: Scientist, volunteer: Callable[..., Volunteer], dying: Dying, raw: Any
) -> None:
    for nth in range(1, MOST):
        own = "success" if nth % 2 else "failure"
        task = scientist.running(2, **JOBS)
        if own == "failure":
            raw.chunks.update_one({"_id": f"{task}.1"}, {"$set": {"state": "quarantined", "wanted": 0}})
        who, seen = volunteer(), Scientist(dying, scientist.key)
        who._http = dying
        dying.deaths = 0
        dying.start(write, nth)

        answered = work(who, seen, task)
        dying.stop()

        companions = [f"{task}--{own}-0", f"{task}--after-0"]
        assert [one for one in answered if "--" in one] == [f"{one}.0" for one in companions]
        assert {one["_id"] for one in raw.tasks.find({"reacts_to": task})} == set(companions)
        for one in companions:
            assert raw.results.count_documents({"task": one, "verdict": "accepted"}) == 1, one
            assert raw.chunks.count_documents({"task": one, "state": "done"}) == 1, one
        ended = raw.tasks.find_one({"_id": task})
        outcome = "failed" if own == "failure" else "succeeded"
        assert (ended["outcome"], ended["reacting"]) == (outcome, False)
        if not dying.deaths:
            break
    assert WRITES[write] < nth < MOST - 1, f"{nth - 1} deaths"
