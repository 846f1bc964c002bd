"""The wire launcher-v1 between a client container and the launcher: frames, and what may be asked.

One connection carries one request and then the events that answer it (events.py). A frame is its length (4 bytes,
big-endian) and that many bytes of UTF-8 JSON, an object. Fields that nobody knows are ignored. Everything here
treats the other side as hostile: sizes and counts are bounded before anything is kept, and whatever is no request
becomes a Refusal with one sentence.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from client_container.launcher.errors import LauncherError
from client_container.launcher.line.names import BadName, checked_names

VERSION = 1
REQUEST_BYTES = 2 * 2**20
EVENT_BYTES = 2 * 2**20  #: no event comes near it: output travels in pieces
REQUEST_S = 10.0  #: a whole request has to arrive within it

MOST_ITEMS = 4096  #: of an action, of an env
MOST_FILES = 1000
LONGEST_TIMEOUT_S = 30 * 86400.0
_LONGEST_NUMBER = 30  #: digits; reading a longer one takes time that grows with the square of its length

_LENGTH = struct.Struct(">I")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

#: Why a request can be refused.
CODES = (
    "bad_request",
    "not_allowed",
    "image_missing",
    "image_too_large",
    "archive_needed",
    "paused",
    "busy",
    "engine",
)


class Refusal(LauncherError):
    """The launcher will not do what was asked; `code` is for programs, the message for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


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


@dataclass(frozen=True, kw_only=True)
class GivenChunk:
    """The data of one execution."""

    id: str
    run: int
    input: str  #: JSON text


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """A file for /in, which lies under its hash in the slot's files/."""

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


Request = Run | Kill | Stats | Pull


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
            body.decode("utf-8"), parse_int=_short_int, parse_float=_short_float, parse_constant=_no_constant
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
        raise Refusal("bad_request", "The verbs are run, kill, stats and pull.")
    return parse(message)


def request_message(request: Request) -> dict[str, Any]:
    """A request as the client sends it."""
    if isinstance(request, Run):
        manifest = {**vars(request.manifest), "action": list(request.manifest.action)}
        manifest["env"] = dict(request.manifest.env)
        files = [vars(file) for file in request.files]
        fields = {"token": request.token, "manifest": manifest, "chunk": vars(request.chunk), "files": files}
        return {"v": VERSION, "verb": "run", **fields}
    return {"v": VERSION, "verb": type(request).__name__.lower(), **vars(request)}


def _parse_run(message: Mapping[str, Any]) -> Run:
    chunk = _object(message, "chunk")
    return Run(
        token=_matching(message, "token", _UUID, "a UUID"),
        manifest=_parse_manifest(_object(message, "manifest")),
        chunk=GivenChunk(
            id=_word(chunk, "id"),
            run=int(_number(chunk, "run", least=0, most=2**31, whole=True)),
            input=_text(chunk, "input"),
        ),
        files=_parse_files(message.get("files", [])),
    )


def _parse_manifest(fields: Mapping[str, Any]) -> Manifest:
    env = _object(fields, "env")
    if len(env) > MOST_ITEMS:
        raise Refusal("bad_request", f"A job's env has at most {MOST_ITEMS} names.")
    return Manifest(
        image=_word(fields, "image", longest=512),
        action=_texts(fields, "action"),
        env={_encodable(name, "env"): _text(env, name) for name in env},
        timeout_s=_number(fields, "timeout_s", least=0.001, most=LONGEST_TIMEOUT_S),
        rows=_optional_int(fields, "rows", most=2**31),
        project=_word(fields, "project"),
        task=_word(fields, "task"),
        memory_mb=_optional_int(fields, "memory_mb", most=2**31),
        cpus=None if fields.get("cpus") is None else _number(fields, "cpus", least=0.01, most=4096),
        disk_mb=_optional_int(fields, "disk_mb", most=2**31),
    )


def _parse_files(value: Any) -> tuple[GivenFile, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Refusal("bad_request", "The request's files are not a list of objects.")
    if len(value) > MOST_FILES:
        raise Refusal("bad_request", f"A chunk has at most {MOST_FILES} files.")
    files = tuple(
        GivenFile(name=_text(one, "name"), sha256=_matching(one, "sha256", _SHA256, "a hex sha256"))
        for one in value
    )
    try:
        checked_names([*(file.name for file in files), "chunk.json"])
    except BadName as error:
        raise Refusal("bad_request", str(error)) from None
    return files


def _parse_kill(message: Mapping[str, Any]) -> Kill:
    return Kill(token=_matching(message, "token", _UUID, "a UUID"))


def _parse_stats(message: Mapping[str, Any]) -> Stats:
    return Stats()


def _parse_pull(message: Mapping[str, Any]) -> Pull:
    file = message.get("file")
    return Pull(
        image=_word(message, "image", longest=512),
        file=None if file is None else _matching(message, "file", _SHA256, "a hex sha256"),
        project=_word(message, "project"),
    )


_VERBS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "run": _parse_run,
    "kill": _parse_kill,
    "stats": _parse_stats,
    "pull": _parse_pull,
}


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise Refusal("bad_request", f"The request lacks the object {name!r}.")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refusal("bad_request", f"In the request {name!r:.100} is not a string.")
    return _encodable(value, name)


def _encodable(text: str, name: str) -> str:
    """JSON can spell half a surrogate pair, which no file, pipe or command line can carry."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal("bad_request", f"In the request {name!r:.100} is not valid Unicode.") from None
    return text


def _word(fields: Mapping[str, Any], name: str, *, longest: int = 200) -> str:
    """A name that may stand in a log, in a label and in a sentence."""
    value = _text(fields, name)
    if not 0 < len(value) <= longest or not value.isprintable():
        raise Refusal("bad_request", f"In the request {name!r} is not 1 to {longest} printable characters.")
    return value


def _matching(fields: Mapping[str, Any], name: str, form: re.Pattern[str], what: str) -> str:
    value = _text(fields, name)
    if form.fullmatch(value) is None:
        raise Refusal("bad_request", f"In the request {name!r} is not {what}.")
    return value


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = fields.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refusal("bad_request", f"In the request {name!r} is not a list of strings.")
    if len(values) > MOST_ITEMS:
        raise Refusal("bad_request", f"In the request {name!r} has more than {MOST_ITEMS} items.")
    return tuple(_encodable(value, name) for value in values)


def _optional_int(fields: Mapping[str, Any], name: str, *, most: float) -> int | None:
    return None if fields.get(name) is None else int(_number(fields, name, least=1, most=most, whole=True))


def _number(fields: Mapping[str, Any], name: str, *, least: float, most: float, whole: bool = False) -> float:
    value = fields.get(name)
    right_kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not right_kind or not least <= (number := float(value or 0)) <= most:
        raise Refusal("bad_request", f"In the request {name!r} is not a number from {least:g} to {most:g}.")
    return number


def _short_int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("too many digits")
    return int(text)


def _short_float(text: str) -> float:
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
