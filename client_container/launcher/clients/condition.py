"""What the client containers say of themselves in their slots' folders. Theirs to write, hence read with suspicion."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_container.launcher.files.folders import open_plain_file, opened

STATE = "state.json"
SPOOL = "spool"
STATE_BYTES = 16 * 1024
MOST_COUNTED = 100_000


@dataclass(frozen=True, kw_only=True)
class Client:
    """How a client container stands with its server, as it says; None where it says nothing."""

    container: str | None = None  #: its id on the server
    registered: bool = False
    registered_at: str | None = None
    last_beat: str | None = None
    reachable: bool | None = None  #: whether the server answered the last call
    problem: str | None = None
    left: bool = False  #: whether it took leave of the server
    undelivered: int = 0  #: finished results that the server does not have yet


def read_client(slots: Path, slot: int) -> Client:
    """What the client of a slot says; nothing where it wrote nothing that can be read."""
    try:
        with opened(slots) as top, opened(str(slot), within=top) as folder:
            return _client(_facts(folder), undelivered=_waiting(folder))
    except OSError:
        return Client()


def forget_client(slots: Path, slot: int) -> None:
    """Remove what an earlier client of the slot said: a new one has not said anything yet. Raises OSError."""
    with opened(slots) as top, opened(str(slot), within=top) as folder:
        try:
            os.unlink(STATE, dir_fd=folder)
        except FileNotFoundError:
            return


def _facts(folder: int) -> dict[str, Any]:
    try:
        descriptor = open_plain_file(STATE, within=folder)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(STATE_BYTES)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _client(facts: dict[str, Any], *, undelivered: int) -> Client:
    return Client(
        container=_word(facts, "container"),
        registered=facts.get("registered") is True,
        registered_at=_word(facts, "registered_at"),
        last_beat=_word(facts, "last_beat"),
        reachable=facts["reachable"] if isinstance(facts.get("reachable"), bool) else None,
        problem=_word(facts, "problem"),
        left=facts.get("left") is True,
        undelivered=undelivered,
    )


def _word(facts: dict[str, Any], name: str) -> str | None:
    """A text that can go to a terminal."""
    value = facts.get(name)
    if not isinstance(value, str) or not value:
        return None
    return "".join(mark if mark.isprintable() else "?" for mark in value[:500])


def _waiting(folder: int) -> int:
    """How many results lie in the spool."""
    try:
        with opened(SPOOL, within=folder) as spool, os.scandir(spool) as entries:
            names = (entry.name for _, entry in zip(range(MOST_COUNTED), entries, strict=False))
            return sum(name.endswith(".json") for name in names)
    except OSError:
        return 0
