"""Say in one sentence why a mongod ended, from its exit code and its log."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from source_server.stores.mongod_files import MongodFolder

_NO_SPACE = "No space left on device"
#: mongod's exit codes: the listener could not be set up; the data needs another release.
_PORT_TAKEN, _WRONG_RELEASE = 48, 62
#: Fields of a log entry that say what went wrong, the best first.
_TELLING = ("error_str", "errmsg", "message", "error")
_TAIL_BYTES = 200_000
_FULL_BELOW_BYTES = 2_000_000
#: Entries that only say that mongod is about to end.
_NOISE = re.compile(r"aborting after|Writing fatal message|Fatal assertion|^\s*$")


def why_it_ended(files: MongodFolder, *, exit_code: int, log_start: int) -> str:
    """One sentence; `log_start` is the size in bytes that the log had before this mongod was started."""
    log = _tail(files.log, log_start)
    output = _tail(files.output, 0)
    if _NO_SPACE in log + output or shutil.disk_usage(files.path).free < _FULL_BELOW_BYTES:
        return f"No disk space is left for MongoDB's data in {files.path}: free some and start again."
    if exit_code == _PORT_TAKEN:
        return f"MongoDB cannot listen on its port, which another program took ({last_words(log, output)})."
    if exit_code == _WRONG_RELEASE:
        return (
            f"The data in {files.path} was made by a MongoDB release that this mongod cannot open "
            f"({last_words(log, output)}): set DOCKERCOMP_MONGOD to that release."
        )
    ending = f"exit code {exit_code}" if exit_code >= 0 else f"signal {-exit_code}"
    return (
        f"MongoDB ended ({ending}) before it was ready, saying: {last_words(log, output)}; "
        f"the data in {files.path} was left as it is, and the log is {files.log}."
    )


def last_words(log: str, output: str) -> str:
    """What was wrong: the log's first error, else its last line, else the last line of the output."""
    errors = [words for line in log.splitlines() if (words := _error_in(line)) and not _NOISE.search(words)]
    if errors:
        return errors[0]
    lines = [line for line in (log.strip() or output.strip()).splitlines() if line.strip()]
    return (_message_in(lines[-1]) if lines else "nothing")[:300]


def _error_in(line: str) -> str | None:
    entry = _entry(line)
    if entry.get("s") not in ("E", "F"):
        return None
    return " ".join(_words_of(entry).split())[:300]


def _message_in(line: str) -> str:
    entry = _entry(line)
    return _words_of(entry) if entry else line


def _words_of(entry: dict[str, object]) -> str:
    """The message of a log entry with the most telling of its fields."""
    message = str(entry.get("msg", ""))
    detail = entry.get("attr")
    while isinstance(detail, dict):
        detail = next((detail[key] for key in _TELLING if key in detail), None)
    return f"{message}: {detail}" if isinstance(detail, str) else message


def _entry(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _tail(file: Path, start: int) -> str:
    if not file.exists():
        return ""
    with file.open("rb") as stream:
        stream.seek(max(start, file.stat().st_size - _TAIL_BYTES))
        return stream.read().decode(errors="replace")
