"""Reactions survive kill -9 of the server before each of the writes that they are made of."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from forks import Child, Forks
from people import Scientist, Volunteer
from product import free_port

JOBS = {
    name: {"action": ["/bin/report", name, "{task}"], "timeout_s": 1.0}
    for name in ("success", "failure", "after")
}


class Dying:
    """The server as a process of its own; who calls it while it is dead starts it again, and says the same again."""

    def __init__(self, forks: Forks, uri: str, database: str, log: Path) -> None:
        self._forks, self._uri, self._database, self._log = forks, uri, database, log
        self.deaths = 0
        self._process: Child | None = None

    def start(self, write: str = "", nth: int = 0) -> None:
        """Begin to serve; with `nth` it dies before the nth write of that kind."""
        self.port = free_port()
        arguments = (self._uri, self._database, str(self.port), write, str(nth))
        with self._log.open("a") as log:
            self._process = self._forks.start(*arguments, stderr=log)
        line = self._process.stdout.readline()
        if line.startswith("killed"):
            self.deaths += 1
            self.start()

    def said(self) -> str:
        """The end of what it has written to stderr."""
        return self._log.read_text()[-4000:]

    def stop(self) -> None:
        """Kill it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            said, _ = self._process.communicate()
            self._process = None
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


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks(Path(__file__).parent, "dying_server")
    yield forks
    forks.close()


@pytest.fixture
def dying(forks: Forks, mongo_uri: str, raw: Any, tmp_path: Path) -> Iterator[Dying]:
    server = Dying(forks, mongo_uri, raw.name, tmp_path / "dying.log")
    yield server
    server.stop()


def work(who: Volunteer, scientist: Scientist, task: str, server: Dying) -> list[str]:
    """Compute what is handed out until the reactions have ended; the reactions' chunks, in the order of answering."""
    deadline, answered = time.monotonic() + 300, list[str]()
    while True:
        shown = scientist.ok("GET", f"/tasks/{task}")
        if shown["state"] == "complete" and not shown["reacting"]:
            return answered
        assert time.monotonic() < deadline, f"{_whys(scientist, shown)}\n{server.said()}"
        for chunk in _claimed(who, server):
            if chunk["id"] not in answered:
                answered.append(chunk["id"])
            _in_the_end(lambda chunk=chunk: who.add(who.attempt(chunk)), server)  # type: ignore[misc]
        time.sleep(0.02)


def _claimed(who: Volunteer, server: Dying) -> list[dict[str, Any]]:
    """What a claim wins; an answer that did not come is asked for under the same token, as a client does."""
    body = {"token": str(uuid.uuid4()), "want": 1}
    answer = _in_the_end(lambda: who.call("POST", "/next", body), server)
    chunks = answer.get_json()["chunks"] if answer.status_code == 200 else []
    return [{**chunk, "token": body["token"]} for chunk in chunks]


def _in_the_end(call: Callable[[], Any], server: Dying) -> Any:
    """The answer once the server knows one."""
    while (answer := call()).status_code == 503:
        time.sleep(0.05)
    assert answer.status_code < 300, f"{answer.status_code} {answer.text[:500]}\n{server.said()}"
    return answer


def _whys(scientist: Scientist, shown: dict[str, Any]) -> str:
    """Why the task, or the reaction to it, does not end."""
    tasks = [shown["id"], *(one["id"] for one in shown["reaction_runs"])]
    chunks = [f"{one}.{n}" for one in tasks for n in range(2)]
    return "\n".join(scientist.call("GET", f"/chunks/{one}/why").text for one in chunks) + f"\n{shown}"


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

        answered = work(who, seen, task, dying)
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
