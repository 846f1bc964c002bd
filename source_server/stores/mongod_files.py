"""The embedded mongod's data folder: its port, its secrets and the release that wrote it."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from source_server.stores.mongod_binary import MongodUnavailable

REPLICA_SET = "dockercomp"
USER = "dockercomp"

#: Ports to choose from: below the range that Linux hands out to outgoing connections.
_PORTS = range(20_000, 30_000)
_LOG_LIMIT_BYTES = 20_000_000


class DataFolderDamaged(MongodUnavailable):
    """A small file that the data cannot be opened without is missing or unreadable."""


class PortTaken(MongodUnavailable):
    """The data belongs to a port on which another program listens."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(
            f"Port {port} of 127.0.0.1, to which the MongoDB data in {folder} is bound, is taken by another "
            "program: stop that program and start again."
        )


class WrongRelease(MongodUnavailable):
    """The data was written by a MongoDB release that the mongod at hand cannot open."""


@dataclass(frozen=True)
class MongodFolder:
    """Names what lies in the folder `path`; nothing is read or written until a method is called."""

    path: Path

    @property
    def data(self) -> Path:
        """mongod's own files (dbpath)."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """mongod's log, JSON lines."""
        return self.path / "mongod.log"

    @property
    def output(self) -> Path:
        """What mongod prints before its log is open."""
        return self.path / "mongod.out"

    @property
    def keyfile(self) -> Path:
        """The replica set's shared secret."""
        return self.path / "keyfile"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the mongod."""
        return self.path / "lock"

    @property
    def has_data(self) -> bool:
        """Whether a mongod has written here before."""
        return (self.data / "WiredTiger").exists()

    def prepare(self) -> None:
        """Make the folder and its secrets where they are missing; raises DataFolderDamaged."""
        if self.has_data:
            for name in ("port", "password"):
                self._read(name)
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        if not (self.path / "password").exists():
            write_durably(self.path / "password", secrets.token_urlsafe(32))
        if not self.keyfile.exists():
            write_durably(self.keyfile, secrets.token_hex(256))
        for name in ("password", "keyfile"):
            (self.path / name).chmod(0o600)

    def settle_port(self) -> int:
        """The port to serve on, which is free now; chosen once. Raises PortTaken."""
        kept = self._read_port() if (self.path / "port").exists() else None
        if kept is not None and is_free(kept):
            return kept
        if kept is not None and self.has_data:
            raise PortTaken(kept, self.path)
        port = choose_port()
        write_durably(self.path / "port", str(port))
        return port

    def uri(self) -> str:
        """How to reach the database, password included; raises DataFolderDamaged."""
        return f"mongodb://{USER}:{self.password()}@127.0.0.1:{self._read_port()}/?{_OPTIONS}"

    def password(self) -> str:
        """The database user's password; raises DataFolderDamaged."""
        return self._read("password")

    def refuse_release(self, binary: Path, version: tuple[int, int, int]) -> None:
        """Raise WrongRelease unless a mongod of this version may open the data; touches nothing."""
        written_by = self._find_release()
        if written_by is None:
            return
        if version[:2] < written_by or version[0] > written_by[0] + 1:
            made, has = ".".join(map(str, written_by)), ".".join(map(str, version))
            raise WrongRelease(
                f"The data in {self.path} belongs to MongoDB {made}, which {binary} (version {has}) cannot "
                f"open: set DOCKERCOMP_MONGOD to a mongod of version {made}. Nothing was changed."
            )

    def record_release(self, compatibility: str) -> None:
        """Keep the feature compatibility version of the data, for example "6.0"."""
        file = self.path / "release"
        if not file.exists() or file.read_text(encoding="ascii").strip() != compatibility:
            write_durably(file, compatibility)

    def rotate_log(self) -> None:
        """Keep at most one old log beside the one to be written."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _find_release(self) -> tuple[int, int] | None:
        try:
            major, minor = (self.path / "release").read_text(encoding="ascii").strip().split(".")
            return int(major), int(minor)
        except (FileNotFoundError, ValueError):
            return None

    def _read_port(self) -> int:
        text = self._read("port")
        if not text.isdecimal() or not 0 < int(text) < 65_536:
            raise DataFolderDamaged(f"{self.path / 'port'} should hold one port number, not {text[:20]!r}.")
        return int(text)

    def _read(self, name: str) -> str:
        try:
            text = (self.path / name).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            text = ""
        if not text:
            raise DataFolderDamaged(
                f"{self.path / name} is missing, and the MongoDB data beside it cannot be opened without it: "
                "restore it from a backup, or move the folder away to begin with an empty database."
            )
        return text


_OPTIONS = f"replicaSet={REPLICA_SET}&authSource=admin"


def find_uri(folder: Path) -> str | None:
    """The URI of the embedded mongod of `folder` while something listens on its port, else None."""
    files = MongodFolder(folder)
    if not (folder / "port").exists() or not (folder / "password").exists():
        return None
    with socket.socket() as probe:
        probe.settimeout(2)
        return files.uri() if probe.connect_ex(("127.0.0.1", files._read_port())) == 0 else None


def choose_port() -> int:
    """A free port of 127.0.0.1, at random so that two servers starting at once do not collide."""
    for _ in range(200):
        port = secrets.choice(_PORTS)
        if is_free(port):
            return port
    raise MongodUnavailable("No free port of 127.0.0.1 was found between 20000 and 29999 for MongoDB.")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def write_durably(path: Path, text: str) -> None:
    """Write a private file (0600) so that after a crash it is either all there or not there."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
