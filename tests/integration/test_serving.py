"""Whether the service works is told by its own answers, so that nobody is purged for the server's own absence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from product import free_port

from source_server.assembly import WEB_APPLICATION, gunicorn_argv
from source_server.config import from_env
from source_server.housekeeping import Housekeeper
from source_server.server_home import Address

WITHIN = timedelta(seconds=3)
BEAT_S = 60.0


@pytest.fixture
def web(
    stores: Any, mongo_uri: str, raw: Any, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """gunicorn with a single thread over the fresh database, and its port."""
    port = free_port()
    env = {
        **os.environ,
        "DOCKERCOMP_HOME": str(tmp_path),
        "DOCKERCOMP_MONGO_URI": mongo_uri,
        "DOCKERCOMP_DATABASE": raw.name,
        "DOCKERCOMP_WEB_PROCESSES": "1",
        "DOCKERCOMP_WEB_THREADS": "1",
    }
    argv = gunicorn_argv(from_env(env), [Address("127.0.0.1", port)], WEB_APPLICATION)
    process = subprocess.Popen(argv, env=env, stderr=(tmp_path / "log").open("wb"))
    yield process, port
    process.send_signal(signal.SIGKILL if process.poll() is None else 0)
    process.wait(30)


def test_a_web_process_that_answers_is_marked_and_one_whose_threads_are_all_held_is_not(
    stores: Any, web: tuple[subprocess.Popen[bytes], int]
) -> None:
    eventually(lambda: is_serving(stores))

    with socket.create_connection(("127.0.0.1", web[1])) as silent:
        silent.sendall(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        eventually(lambda: not is_serving(stores))

    eventually(lambda: is_serving(stores))


def test_after_an_outage_longer_than_a_beat_nobody_is_purged_before_three_beats_of_service(
    stores: Any, volunteer: Callable[..., Any], raw: Any
) -> None:
    who = volunteer()
    clock = [0.0]
    keeper = Housekeeper(stores, beat_s=BEAT_S, monotonic=lambda: clock[0])
    raw.containers.update_one(
        {"_id": who.id}, {"$set": {"last_seen": stores.clock.now() - timedelta(hours=2)}}
    )

    def look(*, serving: bool) -> str:
        if serving:
            stores.meta.mark_serving(stores.clock.now())
        else:
            raw.meta.update_one(
                {"_id": "serving"}, {"$set": {"seen": stores.clock.now() - timedelta(seconds=2 * BEAT_S)}}
            )
        keeper.silence()
        clock[0] += BEAT_S / 4
        return str(raw.containers.find_one({"_id": who.id})["state"])

    before = [look(serving=True) for _ in range(4)]
    during = [look(serving=False) for _ in range(8)]
    after = [look(serving=True) for _ in range(12)]
    finally_ = [look(serving=True) for _ in range(2)]

    assert set(before + during + after) == {"live"}
    assert finally_[-1] == "purged"


def is_serving(stores: Any) -> bool:
    return bool(stores.meta.is_serving(stores.clock.now(), within=WITHIN))


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.1)
