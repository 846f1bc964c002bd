"""The launcher's own files: who this host is, which launcher runs, what it was asked for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from client_container.launcher.errors import AlreadyRunning

FIRST_UID = 730_000  #: start of the reserved range
UIDS = 1_000  #: of it for each instance, hence also the most containers of one


@dataclass(frozen=True)
class Host:
    """This machine, as one state folder knows it."""

    id: str  #: UUID, made once
    first_uid: int  #: the range of the instance that asked


@dataclass(frozen=True)
class StateFolder:
    """The files of one instance below the launcher's folder, which all instances share."""

    launcher: Path
    instance: str

    @property
    def folder(self) -> Path:
        """The instance's own folder."""
        return self.launcher / self.instance

    @property
    def log_file(self) -> Path:
        """What a detached launcher logs; bounded."""
        return self.folder / "launcher.log"

    @property
    def error_file(self) -> Path:
        """Why a detached launcher ended early."""
        return self.folder / "launcher.err"

    @property
    def unfinished(self) -> Path:
        """It is there while a serving launcher runs, and stays when that one cannot clear up after itself."""
        return self.folder / "unfinished"

    def host(self) -> Host:
        """This host's id and the uids of this instance, made when first asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.launcher / "host.json"
        with _locked(self.launcher / "host.lock"):
            known: dict[str, Any] = {"id": str(uuid.uuid4()), "instances": []}
            if path.exists():
                known = json.loads(path.read_text())
            if self.instance not in known["instances"]:
                known["instances"].append(self.instance)
                _replace(path, known)
        return Host(known["id"], FIRST_UID + UIDS * known["instances"].index(self.instance))

    def find_host_id(self) -> str | None:
        """This host's id, or None when no launcher ever ran with this state folder."""
        path = self.launcher / "host.json"
        return str(json.loads(path.read_text())["id"]) if path.exists() else None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Be the one launcher of this instance, until the block ends; raises AlreadyRunning."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            if not _lock_soon(lock):
                pid = self._written_pid() or "unknown"
                raise AlreadyRunning(
                    f"A launcher of instance {self.instance!r} is already running (pid {pid}): stop it with "
                    f"dockercomp-launcher down --name {self.instance}"
                )
            pid_file = self.folder / "launcher.pid"
            pid_file.write_text(f"{os.getpid()}\n")
            try:
                yield
            finally:
                pid_file.unlink(missing_ok=True)

    def running_pid(self) -> int | None:
        """Process id of the running launcher; None when none runs, whatever a stale file says."""
        path = self.folder / "lock"
        if not path.exists():
            return None
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return self._written_pid()
        return None

    def ask(self, wanted: dict[str, Any]) -> None:
        """Note what the launcher was asked for, for `status`."""
        _replace(self.folder / "wanted.json", wanted)

    def asked(self) -> dict[str, Any]:
        """What the launcher was last asked for; empty if it never was."""
        path = self.folder / "wanted.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _written_pid(self) -> int | None:
        try:
            return int((self.folder / "launcher.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None


def _lock_soon(lock: TextIO) -> bool:
    """Lock a file; False if that takes longer than a look at it by `status` may last."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that a reader sees the old or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
