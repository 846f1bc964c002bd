"""What the server writes for a request: listened to once, to be written again by plain pymongo as the raw baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient, monitoring
from pymongo.database import Database

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Write:
    """One command that changed documents."""

    kind: str  #: insert, update, delete
    collection: str
    statements: tuple[Document, ...]
    concern: Mapping[str, Any]

    def __str__(self) -> str:
        concern = ", ".join(f"{name}: {value}" for name, value in sorted(self.concern.items()))
        return f"{self.kind} {self.collection}, {len(self.statements)} statements ({concern})"


@dataclass
class Recording:
    """What was asked of the database while somebody listened."""

    writes: list[Write] = field(default_factory=list)
    reads: Counter[str] = field(default_factory=Counter)

    def of(self, collection: str) -> list[Write]:
        """The writes to that collection."""
        return [write for write in self.writes if write.collection == collection]

    def listed(self) -> dict[str, list[str]]:
        """For people: each write with its size and write concern, and the reads counted."""
        return {
            "writes": [str(write) for write in self.writes],
            "reads": [f"{what} x {count}" for what, count in sorted(self.reads.items())],
        }


class _Listener(monitoring.CommandListener):
    recording: Recording | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.recording is None:
            return
        name, command = event.command_name, event.command
        payload = {"insert": "documents", "update": "updates", "delete": "deletes"}.get(name)
        if payload is not None:
            write = Write(
                kind=name,
                collection=str(command[name]),
                statements=tuple(_plain(one) for one in command[payload]),
                concern=_plain(command.get("writeConcern", {"w": 1})),
            )
            self.recording.writes.append(write)
        elif name in ("find", "aggregate", "count", "distinct"):
            self.recording.reads[f"{name} {command[name]}"] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


class Ear:
    """A database of its own connection, on which it can be listened."""

    def __init__(self, uri: str, database: str) -> None:
        self._listener = _Listener()
        client: MongoClient[Document] = MongoClient(uri, tz_aware=True, event_listeners=[self._listener])
        self.database: Database[Document] = client[database]

    @contextmanager
    def listening(self) -> Iterator[Recording]:
        """Record what happens inside."""
        self._listener.recording = recording = Recording()
        try:
            yield recording
        finally:
            self._listener.recording = None


class Names:
    """Old value -> new one: whole values where they are equal, and names wherever they stand within a text."""

    def __init__(self, equal: Mapping[Any, Any], within: Mapping[str, str]) -> None:
        self._equal = equal
        self._within = within

    def put(self, value: Any) -> Any:
        """The same value with the new names."""
        if isinstance(value, dict):
            return {name: self.put(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.put(one) for one in value]
        if isinstance(value, bool) or not isinstance(value, str | int):
            return value
        if value in self._equal:
            return self._equal[value]
        if isinstance(value, str):
            for old, new in self._within.items():
                value = value.replace(old, new)
        return value


def mentions(value: Any, names: Sequence[Any]) -> bool:
    """Whether any of these values stands anywhere in it."""
    if isinstance(value, dict):
        return any(mentions(one, names) for one in value.values())
    if isinstance(value, list):
        return any(mentions(one, names) for one in value)
    return not isinstance(value, bool) and isinstance(value, str | int) and value in names


def _plain(value: Any) -> Any:
    """Without the driver's own kinds of mappings and lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
