"""A real MongoDB replica set of three members on loopback, without passwords, in a folder of the run's own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from faults.programs import CannotGoOn, Program

NAME = "faults"
DATABASE = "dockercomp"
MEMBERS = 3
START_S = 120.0


@contextmanager
def three_members(binary: Path) -> Iterator[ReplicaSet]:
    """A set that has a primary, in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-set-"))
    made = ReplicaSet(folder, binary)
    try:
        made.start()
        yield made
    finally:
        for member in made.members:
            member.kill()
        shutil.rmtree(folder)


class ReplicaSet:
    """Three mongods; the primary can be found, killed, and cut off from what replicates it."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.ports = free_ports(MEMBERS)
        self.members = [self._program(folder, binary, n) for n in range(MEMBERS)]

    @property
    def uri(self) -> str:
        """For the servers."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"mongodb://{hosts}/?replicaSet={NAME}"

    def start(self) -> None:
        """Start all, make them a set, wait for a primary."""
        for member in self.members:
            member.start()
        deadline = time.monotonic() + START_S
        while not all(self._tell(n, "ping") for n in range(MEMBERS)):
            self._require(deadline)
        # fmt: off
        config = {
            "_id": NAME,
            "members": [{"_id": n, "host": f"127.0.0.1:{port}"} for n, port in enumerate(self.ports)],
            "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
        }
        # fmt: on
        self._tell(0, "replSetInitiate", config)
        while self.find_primary() is None:
            self._require(deadline)

    @contextmanager
    def database(self) -> Iterator[Database[dict[str, Any]]]:
        """The product's database, as its primary has it."""
        client: MongoClient[dict[str, Any]] = MongoClient(self.uri, tz_aware=True)
        with client:
            yield client[DATABASE]

    def find_primary(self) -> int | None:
        """The number of the member that says it is primary, or None."""
        for n in range(MEMBERS):
            if self.members[n].pid and (self._tell(n, "hello") or {}).get("isWritablePrimary"):
                return n
        return None

    def hold_replication(self, *, held: bool, besides: int) -> None:
        """Let all members but one fetch nothing more of what the primary writes, or go on fetching."""
        for n in range(MEMBERS):
            if n != besides:
                mode = "alwaysOn" if held else "off"
                self._tell(n, "configureFailPoint", "stopReplProducer", mode=mode)

    def _tell(self, n: int, command: str, value: Any = 1, **more: Any) -> dict[str, Any] | None:
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(
                "127.0.0.1", self.ports[n], directConnection=True, serverSelectionTimeoutMS=1000
            )
            with client:
                answer: dict[str, Any] = client.admin.command(command, value, **more)
                return answer
        except PyMongoError:
            return None

    def _require(self, deadline: float) -> None:
        dead = [member.name for member in self.members if not member.pid]
        if dead or time.monotonic() > deadline:
            raise CannotGoOn(f"the replica set does not start ({', '.join(dead) or 'no primary'})")
        time.sleep(0.1)

    def _program(self, folder: Path, binary: Path, n: int) -> Program:
        data = folder / f"mongod-{n}"
        data.mkdir(parents=True)
        # fmt: off
        argv = [
            str(binary), "--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(self.ports[n]),
            "--nounixsocket", "--replSet", NAME, "--oplogSize", "128", "--wiredTigerCacheSizeGB", "0.25",
            "--quiet", "--setParameter", "diagnosticDataCollectionEnabled=false",
            "--setParameter", "enableTestCommands=1",  # to hold replication
        ]
        # fmt: on
        env = {"PATH": os.environ["PATH"], "DOCKERCOMP_FAULT_RUN": str(folder)}
        return Program(f"mongod-{n}", argv, env=env, log=folder / f"mongod-{n}.log")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on, outside the range from which systems take theirs."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
