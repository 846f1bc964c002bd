"""A housekeeper that takes one step and is killed with SIGKILL just before its write of a given number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from source_server.housekeeping import Housekeeper
from source_server.stores import gate
from source_server.stores.database import open_stores

WRITES = ("insert", "insert_many", "put_if_absent", "update_one", "update_many", "guarded", "delete_many")


def main(uri: str, database: str, last: str, step: str) -> None:
    """Take the step; prints `done` when it came to its end."""
    stores = open_stores(uri, database, application="killed")
    keeper = Housekeeper(stores, beat_s=20.0)
    left = [int(last)]
    for name in WRITES:
        setattr(gate.Gate, name, _counted(getattr(gate.Gate, name), left))
    getattr(keeper, step)()
    print("done", flush=True)


def _counted(write: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def call(*args: Any, **rest: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return write(*args, **rest)

    return call
