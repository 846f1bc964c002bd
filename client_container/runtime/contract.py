"""What a job's program is promised: its command line, its environment, its seed, and what its answer must be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client_container.blob import NamedBlob
from client_container.launcher.line.names import BadName, checked_names
from client_container.protocol import Chunk

STDOUT_BYTES = 256 * 1024
STDERR_BYTES = 8 * 1024
#: Of an input whose fields are wanted in the command line: it has to be read into memory.
FIELDS_BYTES = 4 * 2**20
CHUNK_FILE = "chunk.json"  #: in /in

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class BadChunk(Exception):
    """This chunk's data cannot be given to its program, or the program's answer does not fit it; one sentence."""


class BadJob(Exception):
    """This job cannot be executed here, whatever the chunk; one sentence."""


class _Number:
    """A JSON number as it was written: no digit is lost, however many there are."""

    def __init__(self, text: str) -> None:
        self.text = text


def command_line(action: Sequence[str], chunk_input: str) -> list[str]:
    """The argv of a job for a chunk: `{name}` replaced in each item, `{{` and `}}` literal braces.

    Raises BadJob for a stray brace, BadChunk for a field that is missing.
    """
    if not wants_fields(action):
        return list(action)
    fields = _parse(chunk_input)
    return [_BRACES.sub(lambda found: _replacement(found, fields), item) for item in action]


def wants_fields(action: Sequence[str]) -> bool:
    """Whether a command line depends on the chunk."""
    return any(mark in item for item in action for mark in "{}")


def text_for_fields(path: Path) -> str:
    """An input that is a file, for `command_line`; raises BadChunk when it is too large for that, OSError."""
    if path.stat().st_size > FIELDS_BYTES:
        raise BadChunk(
            f"The chunk's input is larger than the {FIELDS_BYTES >> 20} MiB of which fields can be put into a command "
            "line; let the program read it from stdin."
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise BadChunk("The chunk's input is not valid Unicode.") from None


def in_files(chunk: Chunk) -> tuple[NamedBlob, ...]:
    """The files for /in, the task's and the chunk's own; raises BadJob for names that no folder should have."""
    files = (*chunk.job.files, *chunk.files)
    try:
        checked_names([*(file.name for file in files), CHUNK_FILE])
    except BadName as error:
        raise BadJob(str(error)) from None
    return files


def _replacement(found: re.Match[str], fields: Any) -> str:
    if found[0] in ("{{", "}}"):
        return found[0][0]
    name = found[1]
    if name is None:
        raise BadJob(f"The action has a single {found[0]} that belongs to no placeholder; write it twice.")
    if not isinstance(fields, dict) or name not in fields:
        raise BadChunk(f"The chunk has no field {name!r}, which the action names.")
    value = fields[name]
    return value if isinstance(value, str) else _json_text(value)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        raise BadChunk(f"The chunk's input cannot be read as JSON ({type(error).__name__}).") from error


def _json_text(value: Any) -> str:
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, list):
        return "[" + ", ".join(map(_json_text, value)) + "]"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(name)}: {_json_text(item)}" for name, item in value.items()) + "}"
        )
    return json.dumps(value)


def seed(chunk_id: str) -> str:
    """$DOCKERCOMP_SEED: the same for every attempt of a chunk."""
    return str(int.from_bytes(hashlib.sha256(chunk_id.encode()).digest()[:4], "big"))


def environment(chunk: Chunk, *, path: str, cpus: float, places: Mapping[str, str]) -> dict[bytes, bytes]:
    """The whole environment of a job: `places` are its own folders, nothing of the client's leaks into it.

    Raises BadJob for an `env` no program can be given.
    """
    threads = str(max(1, int(cpus)))
    clean = {"PATH": path, "TZ": "UTC", "LANG": "C.UTF-8"}
    clean |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    ours = {"DOCKERCOMP_SEED": seed(chunk.id)} | dict(places)
    of_job = {name: value for name, value in chunk.job.env.items() if not name.startswith("DOCKERCOMP_")}
    try:
        whole = {_bytes(name): _bytes(value) for name, value in (clean | ours | of_job).items()}
    except ValueError:
        raise BadJob("The job's env holds a NUL or half a surrogate pair.") from None
    if any(b"=" in name or not name for name in whole):
        raise BadJob("The job's env has a name that is empty or has = in it.")
    return whole


def encoded_argv(argv: Sequence[str]) -> list[bytes]:
    """The command line in UTF-8; raises BadChunk for what no command line can hold."""
    try:
        return [_bytes(item) for item in argv]
    except ValueError:
        raise BadChunk("A field in the command line holds a NUL or half a surrogate pair.") from None


def encoded_input(text: str) -> bytes:
    """The chunk's JSON text in UTF-8; raises BadChunk when it has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadChunk("The chunk's input is not valid Unicode.") from None


def answer(stdout: bytes, chunk: Chunk) -> str:
    """The program's answer as text; raises BadChunk when it is not UTF-8 or has not one line for each row."""
    try:
        text = stdout.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadChunk(f"The answer is not UTF-8 (byte {error.start + 1}).") from error
    if chunk.job.rows is not None and chunk.input_file is None:  # the server counts, too
        rows = _parse(chunk.input)
        expected = rows.get("rows") if isinstance(rows, dict) else None
        if not isinstance(expected, list):
            raise BadChunk("The chunk's input has no list of rows, though its job answers row by row.")
        lines = text.count("\n") + (not text.endswith("\n") and text != "")
        if lines != len(expected):
            raise BadChunk(f"The answer has {lines} lines, its chunk has {len(expected)} rows.")
    return text


def tail(stderr: bytes, *sentences: str) -> str:
    """The end of stderr (or stdout), then what we have to say, each on its own line; at most 8 KiB of UTF-8."""
    text = stderr.decode("utf-8", "replace")
    for sentence in sentences:
        text += ("\n" if text and not text.endswith("\n") else "") + f"dockercomp: {sentence}\n"
    return text.encode("utf-8", "replace")[-STDERR_BYTES:].decode("utf-8", "ignore")


def _bytes(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("NUL")
    return text.encode("utf-8")
