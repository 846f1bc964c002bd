"""What the launcher answers on the wire: progress, output, and the end, each one frame."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client_container.launcher.line.wire import Refusal

Event = Mapping[str, Any]

#: Why an execution was ended, rather than ended by itself.
CAUSES = ("timeout", "oom", "output_limit", "disk_limit", "killed", "given_back", "engine")


@dataclass(frozen=True, kw_only=True)
class OutFile:
    """A file that the job left in /out, now in the slot's files/ under its hash."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class End:
    """How an execution ended."""

    cause: str | None = None  #: one of CAUSES; None when the program ended by itself
    exit_code: int | None = None  #: None when a signal ended it, or when nobody knows
    signal: int | None = None
    cpu_s: float = 0.0
    ran_s: float = 0.0  #: frozen time excluded
    image: str  #: id of the image that ran
    files: Sequence[OutFile] = ()
    note: str = ""  #: a sentence or two for the scientist

    def event(self) -> Event:
        """The last event of a run."""
        return {"event": "end", **vars(self), "files": [vars(file) for file in self.files]}

    @classmethod
    def from_event(cls, event: Event) -> End:
        """Read leniently what `event` said; raises ValueError."""
        files = event.get("files", [])
        return cls(
            cause=_optional(event, "cause", str),
            exit_code=_optional(event, "exit_code", int),
            signal=_optional(event, "signal", int),
            cpu_s=_seconds(event, "cpu_s"),
            ran_s=_seconds(event, "ran_s"),
            image=_optional(event, "image", str) or "",
            files=tuple(
                OutFile(name=str(file["name"]), sha256=str(file["sha256"]), bytes=int(file["bytes"]))
                for file in files
            ),
            note=_optional(event, "note", str) or "",
        )


def started(*, container: str, image: str, at: str) -> Event:
    """The program runs, or is about to; what was told of this execution before is told anew from here."""
    return {"event": "started", "container": container, "image": image, "at": at}


def output(stream: str, data: bytes) -> Event:
    """A piece of stdout or stderr."""
    return {"event": stream, "data": base64.b64encode(data).decode("ascii")}


def progress(done: int, total: int) -> Event:
    """Bytes of an image that have arrived, and of how many."""
    return {"event": "progress", "done": done, "total": total}


def done(**fields: Any) -> Event:
    """The answer of a verb other than run."""
    return {"event": "end", **fields}


def refused(refusal: Refusal) -> Event:
    """Nothing was done."""
    return {"event": "end", "refused": refusal.sentence, "code": refusal.code}


def output_data(event: Event) -> bytes:
    """The bytes of an output event; raises ValueError."""
    try:
        return base64.b64decode(event["data"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError("an output event without data") from error


def refusal_of(event: Event) -> Refusal | None:
    """The refusal that an end is; None when it is none."""
    sentence = event.get("refused")
    if not isinstance(sentence, str):
        return None
    return Refusal(str(event.get("code", "engine")), sentence)


def _optional(event: Event, name: str, kind: type) -> Any:
    value = event.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ValueError(f"the launcher's {name} is not of its kind")
    return value


def _seconds(event: Event, name: str) -> float:
    value = event.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the launcher's {name} is not a number")
    return float(value)
