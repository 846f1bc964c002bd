"""What job containers need of the Docker engine: made, entered, frozen, removed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import requests

from client_container.launcher.engine import translated
from client_container.launcher.errors import EngineAway, EngineError
from client_container.launcher.line.wire import Refusal

CALL_S = 60  #: longest that one call may take: an engine that hangs counts as away
REMOVE_S = 10  #: a removal that hangs must not keep others waiting; the engine goes on with it by itself
_HEAD_BYTES = 64 * 1024
_SOCKET = "/var/run/docker.sock"

#: The bits of Go's os.FileMode that say that something is no plain file.
_NO_PLAIN_FILE = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
#: The engine's words when an image has something where a container needs something else.
_UNUSABLE_IMAGE = (
    "oci runtime create failed",
    "unable to find user",
    "unable to find group",
    "cannot mkdir",
    "not a directory",
    "is a directory",
    "too many levels of symbolic links",
    "too many links",
)
#: What it says as well when the machine is at fault.
_HOSTS_FAULT = (
    "cgroup",
    "no space left",
    "cannot allocate memory",
    "oom-killed",
    "temporarily unavailable",
    "too many open files",
    "input/output error",
    "unable to retrieve oci runtime error",
    "seccomp",
    "apparmor",
    "sysctl",
    "nvidia",
)


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
    workdir: str = ""  #: its WORKDIR


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What lies at a path in a container."""

    plain: bool  #: a file, no link, folder, pipe or device
    #: Of a link: where it leads to in the container, other links on the way resolved; else empty.
    link_target: str


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
            workdir=str(config.get("WorkingDir") or ""),
        )

    def create(self, config: Mapping[str, Any], name: str) -> str:
        """Make and start a container; returns its id. Nothing is left behind when it cannot be started.

        Raises Refusal when the image is at fault, without the engine's words, which tell of this machine's folders.
        """
        made = self.make(config, name)
        try:
            with translated(), _images_fault():
                self._api.start(made)
        except BaseException:
            with contextlib.suppress(EngineError):
                self.remove(made)
            raise
        return made

    def make(self, config: Mapping[str, Any], name: str) -> str:
        """Make a container without starting it; returns its id. Raises Refusal when the image is at fault."""
        with translated(), _images_fault():
            return str(self._api.create_container_from_config(dict(config), name)["Id"])  # type: ignore[no-untyped-call]

    def look(self, container: str, path: str) -> Entry | None:
        """What lies at a path, without opening it; None when nothing does. Raises ContainerGone."""
        place, query = f"/containers/{container}/archive", {"path": path}
        with translated(), _gone(), _images_fault():
            answer = self._call("HEAD", place, query, CALL_S)
            if answer.status_code == 404:
                self._api.inspect_container(container)  # it is there
                return None
            if answer.status_code != 200:  # an answer to HEAD does not say why
                _require_success(self._call("GET", place, query, CALL_S))
            said = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
        return Entry(plain=not said["mode"] & _NO_PLAIN_FILE, link_target=str(said.get("linkTarget") or ""))

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

    def remove(self, container: str, *, within: float = CALL_S) -> None:
        """Kill everything in it, frozen or not, and remove it; already gone is just as well."""
        with contextlib.suppress(ContainerGone), translated(), _gone():
            answer = self._call("DELETE", f"/containers/{container}", {"force": "1", "v": "1"}, within)
            if answer.status_code != 409:  # its removal is under way
                _require_success(answer)

    def _call(self, method: str, path: str, query: Mapping[str, str], seconds: float) -> requests.Response:
        """A call that the SDK does not have, or not with a time limit."""
        url = f"{self._api.base_url}/v{self._api.api_version}{path}"
        most = min(seconds, self._api.timeout)  # no call may take longer than any other
        with self._api.request(method, url, params=query, timeout=most, stream=True) as answer:
            if not answer.ok:
                answer.content  # noqa: B018  # why not
            return answer

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


def _require_success(answer: requests.Response) -> None:
    try:
        answer.raise_for_status()
    except requests.HTTPError as error:
        raise docker.errors.create_api_error_from_http_exception(error) from error


@contextlib.contextmanager
def _images_fault() -> Iterator[None]:
    """Turn what the engine refuses because of the image into a Refusal."""
    try:
        yield
    except docker.errors.APIError as error:
        if images_fault(str(error.explanation or error)):
            raise Refusal("not_allowed", "No container can be made of this image.") from error
        raise


def images_fault(said: str) -> bool:
    """Whether the engine, refusing to make or start a container, complains of the image and not of the machine."""
    words = said.lower()
    return any(one in words for one in _UNUSABLE_IMAGE) and not any(one in words for one in _HOSTS_FAULT)


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
