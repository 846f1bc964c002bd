"""What job containers need of the Docker engine: made, entered, frozen, removed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors

from client_container.launcher.engine import translated
from client_container.launcher.errors import EngineAway, EngineError

CALL_S = 60  #: longest that one call may take: an engine that hangs counts as away
_HEAD_BYTES = 64 * 1024
_SOCKET = "/var/run/docker.sock"


class ContainerGone(EngineError):
    """The container is not there any more."""


@dataclass(frozen=True, kw_only=True)
class ContainerState:
    """A job container, as the engine has it."""

    running: bool
    paused: bool
    out_of_memory: bool
    pid: int  #: of its init, on this machine; 0 when it does not run


@dataclass(frozen=True, kw_only=True)
class ExecState:
    """A process that was started in a container."""

    running: bool
    exit_code: int | None  #: 128 + n when signal n ended it
    pid: int  #: on this machine; 0 when it never was started


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image says of itself that a job container needs to know."""

    id: str
    command: tuple[str, ...]  #: entrypoint and cmd
    path: str | None  #: its PATH
    volumes: tuple[str, ...]  #: places for which the engine would make a writable volume


@dataclass(frozen=True, kw_only=True)
class Cgroups:
    """How the engine keeps cgroups."""

    driver: str  #: cgroupfs or systemd
    version: int


class JobEngine:
    """The engine on this machine: at `host`, else where the environment points to (DOCKER_HOST), else the usual socket.

    Bind mounts and process ids only mean something on the engine's own machine, so that it must be reached through
    a socket file. Everything raises EngineAway and EngineError.
    """

    def __init__(self, host: str | None = None) -> None:
        host = host or os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"
        if not host.startswith("unix://"):
            raise EngineError(f"Job containers need an engine on this machine (a socket file), not {host}.")
        self._socket = host.removeprefix("unix://")
        with translated():
            client = docker.DockerClient(base_url=host, version="auto", timeout=CALL_S, max_pool_size=32)
            self._api = client.api

    def cgroups(self) -> Cgroups:
        """How the engine keeps cgroups."""
        with translated():
            info = self._api.info()
        return Cgroups(driver=str(info["CgroupDriver"]), version=int(info.get("CgroupVersion") or 1))

    def image(self, image_id: str) -> ImageFacts:
        """What an image says of itself; raises EngineError, also when it is not here."""
        with translated():
            found = self._api.inspect_image(image_id)  # type: ignore[no-untyped-call]
        config = found.get("Config") or {}
        env = dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry)
        return ImageFacts(
            id=str(found["Id"]),
            command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
            path=env.get("PATH"),
            volumes=tuple(config.get("Volumes") or ()),
        )

    def create(self, config: Mapping[str, Any], name: str) -> str:
        """Make and start a container; returns its id. Nothing is left behind when it cannot be started."""
        with translated():
            made = str(self._api.create_container_from_config(dict(config), name)["Id"])  # type: ignore[no-untyped-call]
            try:
                self._api.start(made)
            except BaseException:
                with contextlib.suppress(docker.errors.APIError):
                    self._api.remove_container(made, force=True, v=True)
                raise
            return made

    def state(self, container: str) -> ContainerState:
        """How a container is; raises ContainerGone."""
        with translated(), _gone():
            state = self._api.inspect_container(container)["State"]
        return ContainerState(
            running=bool(state["Running"]),
            paused=bool(state["Paused"]),
            out_of_memory=bool(state["OOMKilled"]),
            pid=int(state["Pid"]),
        )

    def pause(self, container: str) -> None:
        """Freeze it, if it is not frozen already; raises ContainerGone."""
        with translated(), _gone(), _so_already():
            self._api.pause(container)

    def unpause(self, container: str) -> None:
        """Let a frozen one go on; raises ContainerGone."""
        with translated(), _gone(), _so_already():
            self._api.unpause(container)

    def remove(self, container: str) -> None:
        """Kill everything in it, frozen or not, and remove it; already gone is just as well."""
        with contextlib.suppress(ContainerGone), translated(), _gone():
            try:
                self._api.remove_container(container, force=True, v=True)
            except docker.errors.APIError as error:
                if error.status_code != 409:  # its removal is under way
                    raise

    def find(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Name by id of all containers that carry all these labels, living or not."""
        with translated():
            filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
            found = self._api.containers(all=True, filters=filters)
        return {entry["Id"]: (entry.get("Names") or ["/"])[0].removeprefix("/") for entry in found}

    def prepare_exec(self, container: str, argv: Sequence[str], *, env: Mapping[str, str], uid: int) -> str:
        """Make ready to start a process in a container; returns the id for the following calls."""
        with translated(), _gone():
            made = self._api.exec_create(
                container,
                list(argv),
                stdin=True,
                user=f"{uid}:{uid}",
                environment=[f"{name}={value}" for name, value in env.items()],
            )
        return str(made["Id"])

    def start_exec(self, exec_id: str) -> tuple[socket.socket, bytes]:
        """Start it; its stdin, stdout and stderr as one connection, and what was read of it already.

        Spoken without the SDK, whose reader of headers may swallow the first bytes of the output.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with translated():
                connection.settimeout(CALL_S)
                connection.connect(self._socket)
                connection.sendall(_upgrade(f"/v{self._api.api_version}/exec/{exec_id}/start"))
                head, rest = _read_head(connection)
            if not head.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
                raise EngineError(f"The Docker engine refused to start a process: {_sentence(head, rest)}")
        except BaseException:
            connection.close()
            raise
        return connection, rest

    def exec_state(self, exec_id: str) -> ExecState:
        """How a process is; raises ContainerGone."""
        with translated(), _gone():
            found = self._api.exec_inspect(exec_id)
        return ExecState(
            running=bool(found["Running"]), exit_code=found.get("ExitCode"), pid=int(found.get("Pid") or 0)
        )


def _upgrade(path: str) -> bytes:
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    return head.encode() + body


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer and what came after it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(4096)
        if not data or len(received) > _HEAD_BYTES:
            raise EngineAway("The Docker engine hung up.")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _sentence(head: bytes, rest: bytes) -> str:
    try:
        return str(json.loads(rest)["message"])
    except (ValueError, KeyError, TypeError):
        return head.split(b"\r\n")[0].decode("latin-1")


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code == 404:
            raise ContainerGone(f"The Docker engine says: {error.explanation or error}") from error
        raise


@contextlib.contextmanager
def _so_already() -> Iterator[None]:
    """It is frozen already, or is not: just as well."""
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code not in (409, 500) or "paused" not in str(error.explanation):
            raise
