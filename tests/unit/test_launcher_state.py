"""The launcher's own files, and its loop with steps handed in."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from client_container.launcher.clients.keeper import AWAY_S, LOOK_S, keep
from client_container.launcher.errors import AlreadyRunning, EngineAway, EngineError
from client_container.launcher.state import StateFolder


def test_a_host_keeps_its_id_for_all_instances_and_for_good(tmp_path: Path) -> None:
    first = StateFolder(tmp_path, "one").host()

    assert StateFolder(tmp_path, "two").host().id == first.id
    assert StateFolder(tmp_path, "one").host() == first


def test_instances_of_one_host_share_no_uid(tmp_path: Path) -> None:
    ranges = [StateFolder(tmp_path, name).host().first_uid for name in ("one", "two", "three", "one")]

    assert ranges == [730_000, 731_000, 732_000, 730_000]


def test_looking_for_a_host_id_makes_none(tmp_path: Path) -> None:
    assert StateFolder(tmp_path, "one").find_host_id() is None
    assert list(tmp_path.iterdir()) == []


def hold(folder: Path, held: Connection) -> None:
    with StateFolder(folder, "one").running():
        held.send("held")
        time.sleep(60)


@pytest.fixture
def another_launcher(tmp_path: Path) -> Iterator[SpawnProcess]:
    """A process that holds instance "one", until it is killed."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(30)
    yield process
    process.kill()
    process.join()


def test_a_second_launcher_of_an_instance_is_refused_with_the_pid_of_the_first(
    tmp_path: Path, another_launcher: SpawnProcess
) -> None:
    refusal = pytest.raises(AlreadyRunning, match=rf"'one' is already running \(pid {another_launcher.pid}\)")

    with refusal, StateFolder(tmp_path, "one").running():
        pass


def test_launchers_of_other_instances_are_not_in_the_way(
    tmp_path: Path, another_launcher: SpawnProcess
) -> None:
    with StateFolder(tmp_path, "two").running():
        assert StateFolder(tmp_path, "one").running_pid() == another_launcher.pid


def test_a_pid_file_left_by_a_killed_launcher_means_nothing(
    tmp_path: Path, another_launcher: SpawnProcess
) -> None:
    another_launcher.kill()
    another_launcher.join()

    assert (tmp_path / "one" / "launcher.pid").exists()
    assert StateFolder(tmp_path, "one").running_pid() is None


def test_what_was_asked_for_is_read_back(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, "one")
    state.host()

    state.ask({"containers": 4})

    assert state.asked() == {"containers": 4}
    assert json.loads((tmp_path / "one" / "wanted.json").read_text()) == {"containers": 4}


def run(outcomes: list[bool | Exception]) -> list[float]:
    """The pauses that the loop made after steps with these outcomes, then was stopped."""
    pauses: list[float] = []
    steps = iter(outcomes)

    def step() -> bool:
        outcome = next(steps)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == len(outcomes)

    keep(step, wait)
    return pauses


def test_the_loop_looks_again_at_once_after_it_did_something() -> None:
    assert run([True, False, False]) == [0, LOOK_S, LOOK_S]


def test_the_loop_outlives_an_engine_that_is_away_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="client_container")

    pauses = run([EngineAway("gone"), EngineAway("gone"), False])

    assert pauses == [AWAY_S, AWAY_S, LOOK_S]
    assert [record.message for record in caplog.records] == ["engine away", "engine back"]


def test_the_loop_outlives_a_step_that_the_engine_refused() -> None:
    assert run([EngineError("no"), True]) == [AWAY_S, 0]
