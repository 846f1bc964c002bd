"""A source server that is killed with SIGKILL just before a write: web and housekeeping in one process.

`main` is forked for each of them (see forks.py). WRITE is a kind of write and a collection, such as
`guarded of chunks`, NTH says before which of them; 0: it lives. It prints `ready`, and `killed` before it dies.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from werkzeug.serving import make_server

from source_server.app import create_app
from source_server.domain.refusal import Unavailable
from source_server.housekeeping import Housekeeper
from source_server.stores import gate
from source_server.stores.connection import connect
from source_server.stores.database import stores_of

WRITES = ("insert", "insert_many", "put_if_absent", "update_one", "update_many", "guarded", "delete_many")


class Killer:
    """Counts the writes of one kind, of all threads."""

    def __init__(self, write: str, nth: int) -> None:
        self._write = write
        self._left = nth
        self._lock = threading.Lock()

    def before(self, what: str) -> None:
        """Die if this is the one."""
        with self._lock:
            self._left -= what == self._write
            if self._left == 0:
                print("killed", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)


def watch(killer: Killer) -> None:
    """Have every write of every collection counted."""
    for name in WRITES:
        setattr(gate.Gate, name, _counted(getattr(gate.Gate, name), name, killer))


def _counted(write: Callable[..., Any], name: str, killer: Killer) -> Callable[..., Any]:
    def counted(self: gate.Gate, *rest: Any, **named: Any) -> Any:
        killer.before(f"{name} of {self._durable.name}")
        return write(self, *rest, **named)

    return counted


def keep_house(keeper: Housekeeper) -> None:
    """Its steps, as often as they can be taken."""
    while True:
        for step in (keeper.tasks, keeper.verdicts, keeper.rounds, keeper.reactions):
            try:
                step()
            except Unavailable:
                pass
            except Exception:
                traceback.print_exc()  # and goes on, as the scheduler does
        time.sleep(0.05)


def main(uri: str, database: str, port: str, write: str, nth: str) -> None:
    """Serve until killed."""
    stores = stores_of(connect(uri, database, application="dying"))
    app = create_app(stores, beat_s=20.0)
    keeper = Housekeeper(stores, beat_s=20.0)
    server = make_server("127.0.0.1", int(port), app, threaded=True)
    if int(nth):
        watch(Killer(write, int(nth)))
    threading.Thread(target=keep_house, args=(keeper,), daemon=True).start()
    print("ready", flush=True)
    server.serve_forever()
