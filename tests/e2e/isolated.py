"""A machine inside this one: network namespaces and a Docker engine of the test's own, gone without a trace.

`home` is the volunteer's machine with its engine; `lan` is the world around it, one cable away, with the addresses that
nobody may reach. Neither has a way out.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import docker
from parts import require

NEW_NET = 0x40000000  # CLONE_NEWNET
HOME, SERVER, NEIGHBOUR, METADATA, DNS = (
    "198.51.100.1",
    "198.51.100.7",
    "198.51.100.9",
    "169.254.169.254",
    "198.51.100.53",
)
SERVER_PORT = 8765

Result = TypeVar("Result")


def run(*command: str, text: str | None = None, env: dict[str, str] | None = None) -> str:
    """Stdout of a command that has to succeed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace: code runs in it by `call`, in a thread that has moved there."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        limit = time.monotonic() + 20
        while self._of_holder() in (None, own):
            assert time.monotonic() < limit, "unshare did not make a network namespace"
            time.sleep(0.01)
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.call(run, "ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """Of a process that lives in it."""
        return self._holder.pid

    def _of_holder(self) -> Path | None:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{self.pid}/comm").read_text() == "sleep\n":
                return Path(f"/proc/{self.pid}/ns/net").readlink()
        return None

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self.pid}/ns/net").open() as file:
            assert libc.setns(file.fileno(), NEW_NET) == 0, os.strerror(ctypes.get_errno())

    def call(self, what: Callable[..., Result], *arguments: Any) -> Result:
        return self._thread.submit(what, *arguments).result(timeout=120)

    def listen(self, address: str, port: int) -> Listener:
        """Answer TCP connections and UDP datagrams at that address until closed."""
        return self.call(Listener, address, port)

    def close(self) -> None:
        self._thread.shutdown()
        self._holder.kill()
        self._holder.wait()


class Listener:
    """Says `hello` to everybody over TCP, and the same back over UDP."""

    def __init__(self, address: str, port: int) -> None:
        self._tcp = socket.create_server((address, port))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        for serve in (self._serve_tcp, self._serve_udp):
            threading.Thread(target=serve, daemon=True).start()

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection:
                    connection.sendall(b"hello")

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, sender = self._udp.recvfrom(100)
                self._udp.sendto(b"hello", sender)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        self._udp.close()


@dataclass
class Machine:
    """The volunteer's machine, the world around it, and the engine on it."""

    home: Namespace
    lan: Namespace
    folder: Path
    client: docker.DockerClient
    listeners: list[Listener] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """A launcher's home; its slots lie on a file system of their own."""
        return self.folder / "home"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def iptables(self, *arguments: str, command: str = "iptables") -> str:
        return self.home.call(run, command, *arguments)

    def rules(self) -> str:
        """All rules of both families, without counters."""
        both = [self.home.call(run, f"{name}-save") for name in ("iptables", "ip6tables")]
        kept = [line.split(" [")[0] for line in "".join(both).splitlines() if not line.startswith("#")]
        return "\n".join(kept)

    def listen(self, place: Namespace, address: str, port: int) -> None:
        self.listeners.append(place.listen(address, port))


@contextlib.contextmanager
def isolated_machine() -> Iterator[Machine]:
    """Make one; needs root and a dockerd to start."""
    for program in ("unshare", "ip", "iptables", "iptables-save", "dockerd"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            require(f"there is no {program} for network namespaces of the tests' own")
    if os.geteuid() != 0:
        require("network namespaces of the tests' own need root")
    folder = Path(tempfile.mkdtemp(prefix="dct-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        home, lan = Namespace(), Namespace()
        stack.callback(lan.close)
        stack.callback(home.close)
        _connect(home, lan)
        stack.enter_context(_own_disk(folder / "home" / "slots"))
        stack.enter_context(_engine(home, folder))
        client = docker.DockerClient(base_url=f"unix://{folder}/docker.sock", timeout=120)
        stack.callback(client.close)
        machine = Machine(home, lan, folder, client)
        stack.callback(lambda: [listener.close() for listener in machine.listeners])
        stack.callback(lambda: [one.remove(force=True) for one in client.containers.list(all=True)])
        yield machine


@contextlib.contextmanager
def _own_disk(folder: Path) -> Iterator[None]:
    """A small file system for slots, there before the engine starts in a mount namespace of its own."""
    folder.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=64m,nodev,nosuid,mode=711", "slots", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


def _connect(home: Namespace, lan: Namespace) -> None:
    add = ["ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(lan.pid)]
    home.call(run, *add)
    for address in (SERVER, NEIGHBOUR, DNS):
        lan.call(run, "ip", "address", "add", f"{address}/24", "dev", "cable")
    lan.call(run, "ip", "address", "add", f"{METADATA}/32", "dev", "cable")
    lan.call(run, "ip", "link", "set", "cable", "up")
    home.call(run, "ip", "address", "add", f"{HOME}/24", "dev", "cable")
    home.call(run, "ip", "link", "set", "cable", "up")
    home.call(run, "ip", "route", "add", METADATA, "dev", "cable")


@contextlib.contextmanager
def _engine(home: Namespace, folder: Path) -> Iterator[None]:
    settings = folder / "daemon.json"
    settings.write_text(json.dumps({"dns": [DNS]}))
    arguments = ["-H", f"unix://{folder}/docker.sock", "--data-root", f"{folder}/data"]
    arguments += ["--exec-root", f"{folder}/exec", "-p", f"{folder}/pid", "--config-file", str(settings)]
    command = ["nsenter", f"--net=/proc/{home.pid}/ns/net", "unshare", "--mount", "dockerd", *arguments]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_engine_environment())
    try:
        limit = time.monotonic() + 60
        while not _answers(folder):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < limit, "the engine did not start"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _engine_environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"/usr/sbin:/sbin:/usr/bin:{os.environ['PATH']}"}


def _answers(folder: Path) -> bool:
    with contextlib.suppress(docker.errors.DockerException, OSError):
        client = docker.DockerClient(base_url=f"unix://{folder}/docker.sock", timeout=5)
        client.ping()
        client.close()
        return True
    return False
