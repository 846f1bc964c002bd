"""Run a real mongod of our own: a one-member replica set on loopback, in one data folder.

Every step of the first start may be cut short by a kill; the next start looks at what is there and
goes on: secrets before the first mongod, then the replica set, then the user, each made once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from source_server.lock_file import LockFile, LockHeld, find_holder
from source_server.stores.mongod_binary import MongodUnavailable, read_version
from source_server.stores.mongod_files import REPLICA_SET, USER, DataFolderDamaged, MongodFolder
from source_server.stores.mongod_log import why_it_ended
from source_server.tether import tethered

#: mongod takes any size at its start (990 MB is only the least that replSetResizeOplog accepts).
#: One member replicates to nobody; the oplog only has to hold some minutes for change streams.
OPLOG_MB = 256

#: A killed owner's mongod is killed with it, but may need a moment to let go of its files.
_ORPHAN_S = 5.0

_ALREADY_INITIALIZED = 23
_AUTHENTICATION_FAILED = 18
_UNAUTHORIZED = 13


class DataFolderInUse(MongodUnavailable):
    """Another process serves this data folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"The MongoDB data in {folder} is in use by {who}: stop it first.")
        self.pid = pid


class MongodDied(MongodUnavailable):
    """mongod ended before it was ready."""


class MongodTooSlow(MongodUnavailable):
    """mongod was not ready in time."""


class StartInterrupted(MongodUnavailable):
    """The caller wanted to stop before mongod was ready."""


class EmbeddedMongod:
    """One mongod on one data folder; start, stop and start again as often as needed.

    mongod is killed when the thread that called `start` ends (Linux): call it from one that stays.
    """

    name = "mongod"

    def __init__(
        self,
        folder: Path,
        binary: Path,
        *,
        cache_gb: float = 1.0,
        oplog_mb: int = OPLOG_MB,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 30.0,
    ) -> None:
        self._files = MongodFolder(folder)
        self._binary = binary
        self._cache_gb = cache_gb
        self._oplog_mb = oplog_mb
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  #: bytes of log that earlier runs wrote
        self._lock = LockFile(self._files.lock)

    @property
    def uri(self) -> str:
        """mongodb://user:password@127.0.0.1:port/?...; known from the first start on."""
        return self._files.uri()

    @property
    def pid(self) -> int | None:
        """mongod's process id while it runs, else None."""
        return self._process.pid if self._process and self.alive() else None

    def alive(self) -> bool:
        """Whether mongod runs."""
        return self._process is not None and self._process.poll() is None

    def ready(self) -> bool:
        """Whether mongod serves; `start` returns only when it does."""
        return self.alive()

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Run mongod until the database can be written to.

        `stopping` is asked meanwhile whether to give up. Raises a MongodUnavailable whose message is one
        sentence; then no mongod runs, and the folder is free again.
        """
        try:
            self._take_folder()
            port = self._prepare()
            self._launch(port)
            self._bring_up(_FirstSteps(port, self._files), stopping)
        except OSError as error:
            self._abandon()
            place = error.filename or self._files.path
            raise MongodUnavailable(f"MongoDB cannot be started: {place}: {error.strerror}.") from error
        except BaseException:
            self._abandon()
            raise

    def stop(self) -> None:
        """End mongod cleanly (SIGTERM, then SIGKILL after the stop timeout) and free the folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        self._lock.release()

    def _take_folder(self) -> None:
        self._files.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except LockHeld as error:
            raise DataFolderInUse(self._files.path, error.pid) from error
        deadline = time.monotonic() + _ORPHAN_S
        while (holder := find_holder(self._files.data / "mongod.lock")) is not None:
            if time.monotonic() > deadline:
                raise DataFolderInUse(self._files.path, holder.pid)
            time.sleep(0.05)

    def _prepare(self) -> int:
        """Everything that can be refused before a mongod touches the data; the port to serve on."""
        self._files.refuse_release(self._binary, read_version(self._binary))
        self._files.prepare()
        self._files.rotate_log()
        return self._files.settle_port()

    def _launch(self, port: int) -> None:
        self._log_start = self._files.log.stat().st_size if self._files.log.exists() else 0
        with self._files.output.open("wb") as output:
            self._process = subprocess.Popen(
                tethered(self._argv(port)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on a terminal reaches our process, which stops mongod last
            )

    def _argv(self, port: int) -> list[str]:
        # fmt: off
        return [
            str(self._binary),
            "--dbpath", str(self._files.data),
            "--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket",
            "--replSet", REPLICA_SET, "--keyFile", str(self._files.keyfile),
            "--oplogSize", str(self._oplog_mb), "--wiredTigerCacheSizeGB", f"{self._cache_gb:g}",
            "--quiet", "--logpath", str(self._files.log), "--logappend", "--slowms", "1000",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ]
        # fmt: on

    def _bring_up(self, steps: _FirstSteps, stopping: Callable[[], bool]) -> None:
        """Take one step after the other until the database is writable, while mongod lives."""
        deadline = time.monotonic() + self._start_timeout_s
        with steps:
            while not steps.advance():
                if not self.alive():
                    raise MongodDied(self._why_it_ended())
                if stopping():
                    raise StartInterrupted("MongoDB was stopped before it was ready.")
                if time.monotonic() > deadline:
                    waited = f"{self._start_timeout_s:g} s"
                    raise MongodTooSlow(
                        f"MongoDB was not ready after {waited}; its log is {self._files.log}."
                    )
                time.sleep(0.05)

    def _why_it_ended(self) -> str:
        assert self._process is not None
        return why_it_ended(self._files, exit_code=self._process.wait(), log_start=self._log_start)

    def _abandon(self) -> None:
        """Leave no half-started mongod behind; SIGKILL is safe, and quick on one that hangs."""
        if self._process is not None and self.alive():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
        self._lock.release()


class _FirstSteps:
    """From "mongod was started" to "our user can write"; each `advance` tries the next step once."""

    def __init__(self, port: int, files: MongodFolder) -> None:
        self._port = port
        self._files = files
        self._client = self._connect()

    def __enter__(self) -> _FirstSteps:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def advance(self) -> bool:
        """True once all steps are done; raises DataFolderDamaged when the password is not the data's."""
        try:
            hello = self._client.admin.command("hello")
            if not hello.get("setName"):
                self._initiate()
            elif hello.get("isWritablePrimary"):
                self._open_as_our_user()
                return True
        except OperationFailure as error:
            if error.code in (_AUTHENTICATION_FAILED, _UNAUTHORIZED):
                raise DataFolderDamaged(
                    f"The password in {self._files.path / 'password'} does not open the MongoDB data beside "
                    "it: restore the one that belongs to it."
                ) from error
        except PyMongoError:
            pass  # not listening yet, or in an election: ask again
        return False

    def _initiate(self) -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self._port}"}
        try:
            self._client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise

    def _open_as_our_user(self) -> None:
        """Log in; the first time make the user, which only the localhost exception allows, and only once."""
        password = self._files.password()
        with self._connect(username=USER, password=password) as client:
            try:
                client.admin.command("ping")
            except OperationFailure as error:
                if error.code != _AUTHENTICATION_FAILED:
                    raise
                self._make_user(password)
            release = client.admin.command("getParameter", featureCompatibilityVersion=1)
        self._files.record_release(release["featureCompatibilityVersion"]["version"])

    def _make_user(self, password: str) -> None:
        durable = {"w": "majority", "j": True}
        self._client.admin.command("createUser", USER, pwd=password, roles=["root"], writeConcern=durable)

    def _connect(self, **credentials: Any) -> MongoClient[dict[str, Any]]:
        # To this member alone: before it is initiated there is no set to look for.
        return MongoClient(
            "127.0.0.1", self._port, directConnection=True, serverSelectionTimeoutMS=500, **credentials
        )
