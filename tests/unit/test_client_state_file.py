"""What a client writes about its standing with the server, for whoever looks after its home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_servers import Quiet, WebServer

from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.protocol import Beat, Introduction, Registration
from client_container.state_file import StateFile, WatchedConnection

WHO = Introduction(
    container="0b5f3a52-6a0f-4b43-a7a5-4c2f6a1d9c11",
    host="0b5f3a52-6a0f-4b43-a7a5-4c2f6a1d9c12",
    host_name=None,
    labels={},
    cpus=1.0,
    memory_mb=None,
    runtimes=("sandbox",),
    image=None,
)


class Answers:
    """A server that gives the next of these answers to each call."""

    def __init__(self) -> None:
        self.queue: list[tuple[int, dict[str, Any]]] = []
        answers = self

        class Handler(Quiet):
            def _next(self) -> None:
                self.body()
                status, message = answers.queue.pop(0)
                self.answer(status, json.dumps(message).encode())

            do_POST = do_DELETE = _next

        server = WebServer(Handler)
        self.url, self.close = server.url, server.close


@pytest.fixture
def answers() -> Iterator[Answers]:
    made = Answers()
    yield made
    made.close()


def facts(home: Path) -> dict[str, Any]:
    return json.loads((home / "state.json").read_text())


REGISTERED = {"id": "c1", "life": "l1", "key": "secret-key", "beat_s": 20}
MEMBER = Registration(id="c1", life="l1", key="secret-key", beat_s=20)


def test_a_registration_a_beat_and_the_leave_are_told(answers: Answers, tmp_path: Path) -> None:
    connection = WatchedConnection(answers.url, "an-account-key", StateFile(tmp_path))
    answers.queue = [
        (201, REGISTERED),
        (200, {"drop": [], "lost": [], "claim_again": []}),
        (200, {"released": 0}),
    ]

    connection.register(WHO)
    registered = facts(tmp_path)
    connection.heartbeat(MEMBER, Beat(beat=1, held={}, started=()))
    beaten = facts(tmp_path)
    connection.leave(MEMBER)
    left = facts(tmp_path)

    assert (registered["container"], registered["registered"], registered["reachable"]) == ("c1", True, True)
    assert beaten["last_beat"] >= registered["registered_at"]
    assert (left["registered"], left["left"]) == (False, True)


def test_no_key_is_ever_written(answers: Answers, tmp_path: Path) -> None:
    answers.queue = [(201, REGISTERED)]

    WatchedConnection(answers.url, "an-account-key", StateFile(tmp_path)).register(WHO)

    text = (tmp_path / "state.json").read_text()
    assert "secret-key" not in text and "an-account-key" not in text


def test_what_goes_wrong_is_told_until_it_goes_well(answers: Answers, tmp_path: Path) -> None:
    connection = WatchedConnection(answers.url, "an-account-key", StateFile(tmp_path))
    answers.queue = [
        (403, {"error": "This account is blocked."}),
        (503, {"error": "The database is away."}),
        (201, REGISTERED),
        (410, {"error": "This life is over."}),
    ]

    with pytest.raises(Refused):
        connection.register(WHO)
    assert (facts(tmp_path)["reachable"], facts(tmp_path)["problem"]) == (True, "This account is blocked.")
    with pytest.raises(ServerUnavailable):
        connection.register(WHO)
    assert (facts(tmp_path)["reachable"], facts(tmp_path)["problem"]) == (False, "The database is away.")
    connection.register(WHO)
    assert (facts(tmp_path)["reachable"], facts(tmp_path)["problem"]) == (True, None)
    with pytest.raises(LifeEnded):
        connection.heartbeat(MEMBER, Beat(beat=1, held={}, started=()))
    assert facts(tmp_path)["registered"] is False


def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    connection = WatchedConnection("http://127.0.0.1:1", "an-account-key", StateFile(tmp_path))

    with pytest.raises(ServerUnavailable):
        connection.register(WHO)

    assert facts(tmp_path)["reachable"] is False
    assert facts(tmp_path)["problem"] == "http://127.0.0.1:1 does not answer (ConnectionError)."


def test_a_home_that_cannot_be_written_does_not_stop_the_client(tmp_path: Path) -> None:
    StateFile(tmp_path / "gone").note(registered=True)


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    state.note(registered=True)
    before = (tmp_path / "state.json").stat().st_ino

    state.note(registered=True)

    assert (tmp_path / "state.json").stat().st_ino == before
