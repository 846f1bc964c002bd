"""What the end of a program means for its chunk: the same rules for every runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client_container.blob import NamedBlob
from client_container.launcher.line.events import OutFile
from client_container.protocol import Chunk
from client_container.runtime.contract import BadChunk, BadJob, answer, tail


def verdict(
    chunk: Chunk,
    *,
    cause: str | None,
    exit_code: int | None,
    signal: int | None,
    cpu_s: float,
    stdout: bytes,
    stderr: bytes,
    note: str = "",
) -> dict[str, Any]:
    """The fields of an Execution that tell how it ended.

    `cause` is why it was ended (timeout, oom, output_limit, disk_limit), None when it ended by itself. A program that
    filled its disk counts as one that wrote too much. `note` is what the runtime has to say, in sentences.
    """
    facts: dict[str, Any] = {"exit_code": exit_code, "signal": signal, "cpu_s": cpu_s}
    notes = [note] if note else []
    if cause is not None:
        outcome, sentence = _CAUSES[cause]
        said = sentence.format(timeout_s=chunk.job.timeout_s)
        return facts | {"outcome": outcome, **_said(stdout, tail(stderr, *filter(None, (said, note))))}
    if exit_code != 0:
        return facts | {"outcome": "failed", **_said(stdout, tail(stderr, *notes))}
    try:
        text = answer(stdout, chunk)
    except BadChunk as error:
        return facts | {"outcome": "failed", **_said(stdout, tail(stderr, str(error), *notes))}
    return facts | {"outcome": "ok", "stdout": text, "stderr_tail": tail(stderr, *notes)}


def _said(stdout: bytes, stderr_tail: str) -> dict[str, Any]:
    """What a failed program said: tests tell on stdout what is wrong."""
    return {"stdout": tail(stdout), "stderr_tail": stderr_tail}


def kept_files(files: Sequence[OutFile], folder: Path, *, outcome: str) -> dict[str, Any]:
    """The fields of an Execution that tell what the program left in /out: of a failed one nothing is kept."""
    if outcome == "ok":
        return {"files": tuple(NamedBlob(**vars(file)) for file in files), "folder": folder}
    for file in files:
        with contextlib.suppress(OSError):
            (folder / file.sha256).unlink()
    return {}


def not_run(error: BadJob | BadChunk) -> dict[str, Any]:
    """The same for a chunk whose program was not even started, because of its job or its data."""
    outcome = "engine" if isinstance(error, BadJob) else "failed"
    return {"outcome": outcome, "stderr_tail": tail(b"", str(error))}


#: The outcome of the protocol, and a sentence, by cause.
_CAUSES = {
    "timeout": ("timeout", "The program was stopped at its timeout of {timeout_s:g} s."),
    "oom": ("oom", "The program, or one it started, was killed because memory ran out."),
    "output_limit": ("output_limit", "The program wrote more than 256 KiB to stdout."),
    "disk_limit": ("output_limit", ""),
}
