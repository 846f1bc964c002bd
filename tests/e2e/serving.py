"""An installed launcher under test: the files that an installer would write, the service, the volunteer's command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from launching import wait_for
from product import Product, database_in_memory

from client_container.launcher.engine import Engine
from client_container.launcher.service.control import ControlError, ask


class Serving:
    """One instance in a folder of its own, on the engine of this machine."""

    def __init__(
        self, engine: docker.DockerClient, folder: Path, *, server: str, image: str, key: str, number: int = 0
    ) -> None:
        """`number` 0 is the machine's first instance; further ones lie where an installer would put them."""
        self.engine, self.folder, self.name = engine, folder, f"test-{uuid.uuid4().hex[:8]}"
        self.etc, self.home = folder / "etc", folder / "var"
        if number:
            self.etc, self.home = (place / "instances" / self.name for place in (self.etc, self.home))
        self.log = folder / f"launcher-{number}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {
            "instance": self.name,
            "server": server,
            "image": image,
            "first_uid": 740_000 + 2000 * (os.getpid() % 100 + number),
            "version": "0.1.0",
            "home": str(self.home),
            "control": str(folder / f"control-{number}.sock"),
        }
        self.etc.mkdir(parents=True)
        (self.etc / "launcher.json").write_text(json.dumps(self.facts))
        (self.etc / "account.key").write_text(key)
        self.policy()

    def policy(self, text: str = "", *, containers: int = 2) -> None:
        """Write policy.toml."""
        limits = f'[limits]\ncontainers = {containers}\ncpus = 2\nmemory = "1g"\ndisk = "2g"\n'
        (self.etc / "policy.toml").write_text(limits + text)

    def self_test_passed(self) -> None:
        """What a passed self-test leaves behind: here something else is tested."""
        folder = self.home / "launcher"
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        of = f"{self.facts['version']} on {self.engine.version()['Version']}"
        verdict = {"verdict": "passed", "at": now, "checks": [], "of": of}
        (folder / "self-test.json").write_text(json.dumps(verdict))

    def start(self, **env: str) -> None:
        """Start the service as its unit does."""
        command = [sys.executable, "-m", "client_container.launcher", "serve", f"--etc={self.etc}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env}
            )
        wait_for(lambda: self._answers() or (self.process and self.process.poll() is not None))
        assert self.process.poll() is None, self.log.read_text()

    def _answers(self) -> bool:
        """Whether the launcher is there: its socket alone may be that of a dead one."""
        try:
            return bool(ask(Path(self.facts["control"]), "limits", seconds=5))
        except ControlError:
            return False

    def kill(self) -> None:
        """kill -9, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """What systemd does to stop the unit; answers how many seconds it took."""
        assert self.process is not None
        began = datetime.now()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=40) == 0, self.log.read_text()
        return (datetime.now() - began).total_seconds()

    def volunteer(self, *arguments: str, status: int = 0) -> str:
        """What the volunteer's command says, which must end with that status."""
        command = [sys.executable, "-m", "client_container.launcher.volunteer.cli", "--etc", str(self.etc)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180)
        assert done.returncode == status, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.log.read_text()}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """Everything the launcher says."""
        return ask(Path(self.facts["control"]), "status", seconds=30)

    def everything(self, kind: str | None = None) -> list[Container]:
        """All containers of the instance, living or not."""
        labels = [f"dockercomp.instance={self.name}", *([f"dockercomp.kind={kind}"] if kind else [])]
        return self.engine.containers.list(all=True, filters={"label": labels}, ignore_removed=True)

    def clients(self) -> dict[str, Container]:
        """The running client containers, by slot."""
        return {
            one.labels["dockercomp.slot"]: one for one in self.everything("client") if one.status == "running"
        }

    def registered(self, count: int) -> dict[str, Container]:
        """The client containers once so many are registered."""
        self.wait(lambda: self.status()["registered"] == count == len(self.clients()))
        return self.clients()

    def wait(self, so: Callable[[], Any]) -> Any:
        """Wait for a condition; a failure shows what the launcher and its clients said."""
        try:
            return wait_for(so)
        except AssertionError as late:
            logs = {slot: one.logs(tail=20).decode() for slot, one in self.clients().items()}
            raise AssertionError(f"{late}\n{self.log.read_text()[-6000:]}\n{logs}\n{self.status()}") from late

    def clean_up(self) -> None:
        """Whatever a failed test left."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for container in self.everything():
            container.remove(force=True)


class Line:
    """A socket through which the engine is reached, and that can be cut: the engine is away, its containers live on."""

    def __init__(self, path: Path, engine: str = "/var/run/docker.sock") -> None:
        self.path, self._engine = path, engine
        self._listener: socket.socket | None = None
        self._pairs: list[socket.socket] = []

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is not None:
            self.path.unlink()
            for one in (self._listener, *self._pairs):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener, self._pairs = None, []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._engine)
            self._pairs += [caller, engine]
            for source, target in ((caller, engine), (engine, caller)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def server_for_containers(
    home: Path, *options: str, settings: dict[str, str] | None = None
) -> Iterator[Product]:
    """A source server that containers reach at the bridge's gateway, and a scientist's key."""
    product = Product(home)
    product.env.update(settings or {})
    gateway = Engine().gateway  # an engine just started does not name it: the product knows
    product.address = f"http://{gateway}:{product.port}"
    product.env["DOCKERCOMP_SERVER"] = product.address
    with database_in_memory(home):
        yield from _up(product, gateway, *options)


def _up(product: Product, gateway: str, *options: str) -> Iterator[Product]:
    product.run("dockercomp-server", "up", "--detach", "--bind", f"{gateway}:{product.port}", *options)
    try:
        for name, role in (("ada", "scientist"), ("vera", "volunteer")):
            key_file = str(product.home / f"{role}.key")
            product.run("dockercomp-server", "account", "add", name, "--role", role, "--key-file", key_file)
        yield product
    finally:
        product.run("dockercomp-server", "down")
