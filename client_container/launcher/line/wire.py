"""The wire launcher-v1 between a client container and the launcher: frames, and what may be asked.

One connection carries one request and then the events that answer it (events.py). A frame is its length (4 bytes,
big-endian) and that many bytes of UTF-8 JSON, an object. Fields that nobody knows are ignored. Everything here
treats the other side as hostile: sizes and counts are bounded before anything is kept, and whatever is no request
becomes a Refusal with one sentence.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from client_container.launcher.errors import LauncherError
from client_container.launcher.line import values
from client_container.launcher.line.names import BadName, checked_names
from client_container.launcher.line.patterns import LONGEST, MOST_PATTERNS
from client_container.launcher.line.refusal import Refusal as Refusal
from client_container.launcher.line.values import MOST_ITEMS

VERSION = 1
REQUEST_BYTES = 2 * 2**20
EVENT_BYTES = 2 * 2**20  #: no event comes near it: output travels in pieces
REQUEST_S = 10.0  #: a whole request has to arrive within it

MOST_FILES = 1000
LONGEST_TIMEOUT_S = 30 * 86400.0

_LENGTH = struct.Struct(">I")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ConnectionEnded(LauncherError):
    """The other side left, is too slow, or does not speak in frames."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a job is: all that decides what runs, and within which limits."""

    image: str  #: name@sha256:... or sha256:<image id>
    action: tuple[str, ...]  #: argv with {placeholders}; empty: the image's own command
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float
    rows: int | None = None  #: rows of a chunk; None when a chunk is one value
    project: str
    task: str
    memory_mb: int | None = None  #: None: this host's share for one job; so are the next two
    cpus: float | None = None
    disk_mb: int | None = None
    outputs: tuple[str, ...] | None = None  #: patterns of files below /out that are wanted; None: all are
    gpu: bool = False  #: it asks for this host's graphics processors


@dataclass(frozen=True, kw_only=True)
class GivenChunk:
    """The data of one execution."""

    id: str
    run: int
    input: str  #: JSON text; empty when it is a file
    input_file: str | None = None  #: hex sha256 of a file with the JSON text


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """A file for /in, which this host keeps for the project, or which lies under its hash in the slot's files/."""

    name: str  #: relative, below /in
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """Execute a chunk. The same token again means the same execution: its events are told once more."""

    token: str
    manifest: Manifest
    chunk: GivenChunk
    files: tuple[GivenFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kill:
    """End an execution of this slot's."""

    token: str


@dataclass(frozen=True, kw_only=True)
class Stats:
    """How things stand."""


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Have an image on this machine."""

    image: str
    file: str | None = None  #: hex sha256 of an archive in the slot's files/
    project: str


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """A file that a chunk needs."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Files:
    """Which of these files are here, which this client is to fetch, and which another one is fetching just now."""

    want: tuple[WantedFile, ...]
    project: str


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Keep a file from the slot's files/ for all chunks of the project."""

    sha256: str
    project: str


Request = Run | Kill | Stats | Pull | Files | Keep


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """A message as it travels."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def read_frame(connection: socket.socket, *, most: int, seconds: float | None) -> bytes:
    """The body of the next frame, of at most `most` bytes, whole within `seconds` (None: no limit).

    Raises ConnectionEnded, and OSError when the connection broke.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size, ends))
    if length > most:
        raise ConnectionEnded(f"A frame of {length} bytes is longer than the {most} that are read.")
    return _receive(connection, length, ends)


def _receive(connection: socket.socket, count: int, ends: float | None) -> bytes:
    """Exactly that many bytes. What has not come takes no memory, whatever was announced."""
    received = bytearray()
    while len(received) < count:
        patience = None if ends is None else ends - time.monotonic()
        if patience is not None and patience <= 0:
            raise ConnectionEnded("The other side is too slow.")
        connection.settimeout(patience)
        try:
            data = connection.recv(min(65536, count - len(received)))
        except TimeoutError:
            raise ConnectionEnded("The other side is too slow.") from None
        if not data:
            raise ConnectionEnded("The other side hung up.")
        received += data
    return bytes(received)


def parse_object(body: bytes) -> dict[str, Any]:
    """A frame's body as an object; raises Refusal."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_int=values.short_int,
            parse_float=values.short_float,
            parse_constant=values.no_constant,
        )
    except (ValueError, RecursionError):
        raise Refusal("bad_request", "The request is not JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise Refusal("bad_request", "The request is not a JSON object.")
    return value


def parse_request(body: bytes) -> Request:
    """What is asked for; raises Refusal and nothing else."""
    message = parse_object(body)
    if message.get("v") != VERSION or isinstance(message.get("v"), bool):
        raise Refusal("bad_request", f"This launcher speaks version {VERSION} of the wire.")
    verb = message.get("verb")
    parse = _VERBS.get(verb) if isinstance(verb, str) else None
    if parse is None:
        raise Refusal("bad_request", "The verbs are run, kill, stats, pull, files and keep.")
    return parse(message)


def request_message(request: Request) -> dict[str, Any]:
    """A request as the client sends it."""
    verb = type(request).__name__.lower()
    if isinstance(request, Run):
        return {"v": VERSION, "verb": verb, **_run_fields(request)}
    if isinstance(request, Files):
        want = [vars(one) for one in request.want]
        return {"v": VERSION, "verb": verb, "want": want, "project": request.project}
    return {"v": VERSION, "verb": verb, **vars(request)}


def _run_fields(request: Run) -> dict[str, Any]:
    """What came later than the wire itself is said only where there is any."""
    manifest = {**vars(request.manifest), "action": list(request.manifest.action)}
    manifest["env"] = dict(request.manifest.env)
    if request.manifest.outputs is None:
        del manifest["outputs"]
    else:
        manifest["outputs"] = list(request.manifest.outputs)
    if not request.manifest.gpu:
        del manifest["gpu"]
    chunk = dict(vars(request.chunk))
    del chunk["input_file" if request.chunk.input_file is None else "input"]
    files = [vars(file) for file in request.files]
    return {"token": request.token, "manifest": manifest, "chunk": chunk, "files": files}


def _parse_run(message: Mapping[str, Any]) -> Run:
    chunk = values.an_object(message, "chunk")
    file = None if chunk.get("input_file") is None else _sha256(chunk, "input_file")
    return Run(
        token=values.matching(message, "token", _UUID, "a UUID"),
        manifest=_parse_manifest(values.an_object(message, "manifest")),
        chunk=GivenChunk(
            id=values.word(chunk, "id"),
            run=int(values.number(chunk, "run", least=0, most=2**31, whole=True)),
            input="" if file is not None else values.text(chunk, "input"),
            input_file=file,
        ),
        files=_parse_files(message.get("files", [])),
    )


def _parse_manifest(fields: Mapping[str, Any]) -> Manifest:
    env = values.an_object(fields, "env")
    if len(env) > MOST_ITEMS:
        raise Refusal("bad_request", f"A job's env has at most {MOST_ITEMS} names.")
    return Manifest(
        image=values.word(fields, "image", longest=512),
        action=values.texts(fields, "action"),
        env={values.encodable(name, "env"): values.text(env, name) for name in env},
        timeout_s=values.number(fields, "timeout_s", least=0.001, most=LONGEST_TIMEOUT_S),
        rows=values.optional_int(fields, "rows", most=2**31),
        project=values.word(fields, "project"),
        task=values.word(fields, "task"),
        memory_mb=values.optional_int(fields, "memory_mb", most=2**31),
        cpus=None if fields.get("cpus") is None else values.number(fields, "cpus", least=0.01, most=4096),
        disk_mb=values.optional_int(fields, "disk_mb", most=2**31),
        outputs=_parse_outputs(fields),
        gpu=fields.get("gpu") is True,
    )


def _parse_outputs(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    if fields.get("outputs") is None:
        return None
    patterns = values.texts(fields, "outputs")
    if len(patterns) > MOST_PATTERNS or any(len(pattern) > LONGEST for pattern in patterns):
        raise Refusal(
            "bad_request", f"A job has at most {MOST_PATTERNS} patterns of files, none of them long."
        )
    return patterns


def _parse_files(value: Any) -> tuple[GivenFile, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Refusal("bad_request", "The request's files are not a list of objects.")
    if len(value) > MOST_FILES:
        raise Refusal("bad_request", f"A chunk has at most {MOST_FILES} files.")
    files = tuple(GivenFile(name=values.text(one, "name"), sha256=_sha256(one, "sha256")) for one in value)
    try:
        checked_names([*(file.name for file in files), "chunk.json"])
    except BadName as error:
        raise Refusal("bad_request", str(error)) from None
    return files


def _parse_kill(message: Mapping[str, Any]) -> Kill:
    return Kill(token=values.matching(message, "token", _UUID, "a UUID"))


def _parse_stats(message: Mapping[str, Any]) -> Stats:
    return Stats()


def _parse_pull(message: Mapping[str, Any]) -> Pull:
    file = message.get("file")
    return Pull(
        image=values.word(message, "image", longest=512),
        file=None if file is None else _sha256(message, "file"),
        project=values.word(message, "project"),
    )


def _parse_wanted(message: Mapping[str, Any]) -> Files:
    want = message.get("want")
    if not isinstance(want, list) or not all(isinstance(one, dict) for one in want):
        raise Refusal("bad_request", "The request's want is not a list of objects.")
    if len(want) > MOST_FILES + 1:
        raise Refusal("bad_request", f"A chunk has at most {MOST_FILES} files and an input.")
    return Files(
        want=tuple(
            WantedFile(
                sha256=_sha256(one, "sha256"),
                bytes=int(values.number(one, "bytes", least=0, most=2**53, whole=True)),
            )
            for one in want
        ),
        project=values.word(message, "project"),
    )


def _parse_keep(message: Mapping[str, Any]) -> Keep:
    return Keep(sha256=_sha256(message, "sha256"), project=values.word(message, "project"))


def _sha256(fields: Mapping[str, Any], name: str) -> str:
    return values.matching(fields, name, _SHA256, "a hex sha256")


_VERBS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "run": _parse_run,
    "kill": _parse_kill,
    "stats": _parse_stats,
    "pull": _parse_pull,
    "files": _parse_wanted,
    "keep": _parse_keep,
}
