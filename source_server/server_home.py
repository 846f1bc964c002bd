"""The source server's own folder and addresses: who runs there, where it listens, whether it can start."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from source_server.lock_file import Holder, LockFile, LockHeld, find_holder

#: After a kill -9 of the supervisor its web processes need a moment to notice.
_ORPHAN_S = 5.0


class CannotStart(Exception):
    """The server cannot start here and now; the message is one sentence. Nothing was started."""


class BadAddress(ValueError):
    """Not an address to listen on; the message is one sentence."""


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str  #: an IP address or a name
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From "HOST:PORT" or "[IPv6]:PORT"; raises BadAddress."""
        host, _, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        plain = bare == host and ":" in host
        if not bare or plain or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise BadAddress(f"An address to listen on is HOST:PORT, such as 127.0.0.1:8765, not {text!r}.")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where a program on this machine reaches it."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{Address(loopback, self.port)}"


DEFAULT_ADDRESS = Address("127.0.0.1", 8765)


@dataclass(frozen=True)
class ServerHome:
    """Names what lies in the server's folder, <home>/server."""

    path: Path

    @property
    def log(self) -> Path:
        """What a detached server writes."""
        return self.path / "up.log"

    @property
    def mongodb(self) -> Path:
        """The embedded MongoDB's folder."""
        return self.path / "mongodb"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _pid(self) -> Path:
        return self.path / "up.pid"

    @property
    def _address(self) -> Path:
        return self.path / "address"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one server of this home; raises CannotStart, naming the process that is."""
        lock = LockFile(self._lock)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except LockHeld as error:
            raise already_running(self.path, error.pid) from error
        except OSError as error:
            raise CannotStart(f"The state folder {self.path} cannot be used: {error.strerror}.") from error
        try:
            self._address.unlink(missing_ok=True)
            self._pid.write_text(f"{os.getpid()}\n", encoding="ascii")
            yield
        finally:
            self.forget()
            lock.release()

    def find_runner(self) -> Holder | None:
        """The server that runs in this home, or None."""
        return find_holder(self._lock)

    def record_address(self, address: Address) -> None:
        """Say where the server answers, once it does."""
        self._address.write_text(f"{address.url}\n", encoding="ascii")

    def find_url(self) -> str | None:
        """Where the server answers, or None while it does not run or is not ready."""
        if self.find_runner() is None or not self._address.exists():
            return None
        return self._address.read_text(encoding="ascii").strip() or None

    def forget(self) -> None:
        """Remove the notes of a server that runs no more."""
        self._address.unlink(missing_ok=True)
        self._pid.unlink(missing_ok=True)

    @property
    def ended_badly(self) -> bool:
        """Whether the last server was killed before it could tidy up (only true while none runs)."""
        return self._pid.exists()


def already_running(folder: Path, pid: int | None) -> CannotStart:
    """The refusal of a second server in one home."""
    who = f"process {pid}" if pid else "another process"
    return CannotStart(
        f"A source server already runs in {folder} ({who}): stop it with `dockercomp-server down` first."
    )


def require_disk(folder: Path, min_free_mb: float) -> None:
    """Raise CannotStart unless the disk of `folder` has so much space (10^6 bytes)."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    if free_mb < min_free_mb:
        raise CannotStart(
            f"The disk of {folder} has only {free_mb:.0f} MB left, and the server wants {min_free_mb:g}: "
            "free some, or set DOCKERCOMP_HOME to a folder on another disk."
        )


def require_free(addresses: Sequence[Address], *, patience_s: float = 0.0) -> None:
    """Raise CannotStart, naming the address, unless a server could listen on all of them at once."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            _listen_on_all(addresses)
        except CannotStart:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def orphan_patience_s(home: ServerHome) -> float:
    """How long to wait for addresses that a killed server's children may still hold, in seconds."""
    return _ORPHAN_S if home.ended_badly else 0.0


def _listen_on_all(addresses: Sequence[Address]) -> None:
    with ExitStack() as held:
        for address in addresses:
            try:
                held.enter_context(_listener(address))
            except OSError as error:
                raise CannotStart(_why_not(address, error)) from error


def _listener(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def _why_not(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"The address {address} is taken by another program: stop it, or choose another with --bind."
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"The address {address} is not one of this machine's: choose another with --bind."
    if error.errno == errno.EACCES:
        return f"The port of {address} is only for the superuser: choose one from 1024 on with --bind."
    return f"The server cannot listen on {address}: {error.strerror}."
