"""What the proxies saw: every attempt that was sent, and what the servers said of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """One attempt as one client delivered it."""

    client: int
    chunk: str
    run: int
    token: str
    good: bool  #: whether it is an answer, and not a failure
    digest: str


@dataclass(frozen=True)
class Said:
    """A refused attempt: by whom it was delivered, and the server's words."""

    told: Told
    status: int
    sentence: str


class Ledger:
    """Kept by all proxies together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent: set[Told] = set()
        self.acknowledged: set[Told] = set()
        self.refused: list[Said] = []
        self.statuses: Counter[tuple[str, int]] = Counter()  #: (call, status)
        self.broken: list[str] = []  #: answers that no server should give
        self._failures: Counter[int] = Counter()
        self._answered: set[str] = set()
        self._entries: dict[str, dict[str, Any]] = {}  #: the latest good attempt of some chunks, as sent

    @property
    def answered(self) -> int:
        """How many chunks have an acknowledged good result."""
        with self._lock:
            return len(self._answered)

    def failures(self, clients: set[int]) -> int:
        """How many failed attempts these clients have delivered."""
        with self._lock:
            return sum(self._failures[client] for client in clients)

    def note_sent(self, client: int, body: bytes) -> None:
        """A whole request with attempts is about to reach a server."""
        entries = _entries(body)
        with self._lock:
            for entry in entries:
                told = _told(client, entry)
                if not told.good and told not in self.sent:
                    self._failures[client] += 1
                self.sent.add(told)
                if told.good and len(self._entries) < 200:
                    self._entries.setdefault(told.chunk, entry)

    def note_reply(self, client: int, call: str, body: bytes, status: int, reply: bytes) -> None:
        """A server answered, whatever becomes of the answer on its way."""
        with self._lock:
            self.statuses[(call, status)] += 1
            if status >= 500 and status != 503:
                self.broken.append(f"{call} was answered {status}: {reply[:200]!r}")
            answers = _answers(reply)
            for entry, answer in zip(_entries(body), answers, strict=False):
                self._note(_told(client, entry), answer)

    def borrow_attempt(self) -> dict[str, Any] | None:
        """An attempt that somebody has sent, for those who would pass it off as theirs."""
        with self._lock:
            return self._entries.pop(next(iter(self._entries))) if self._entries else None

    def _note(self, told: Told, answer: dict[str, Any]) -> None:
        if answer.get("chunk") != told.chunk:
            self.broken.append(f"the answer for {told.chunk} names {answer.get('chunk')}")
        elif answer.get("stored") is True:
            self.acknowledged.add(told)
            if told.good:
                self._answered.add(told.chunk)
        else:
            self.refused.append(Said(told, int(answer.get("status", 0)), str(answer.get("error"))))


def digest_of(entry: dict[str, Any]) -> str:
    """The digest that the database must hold for an attempt (docs/reference/documents.md)."""
    if entry["outcome"] == "ok":
        return hashlib.sha256(entry["stdout"].encode()).hexdigest()
    told = (entry["outcome"], str(entry["exit_code"]), str(entry["signal"]))
    return hashlib.sha256("\n".join((*told, entry["stderr_tail"], entry["stdout"])).encode()).hexdigest()


def _told(client: int, entry: dict[str, Any]) -> Told:
    good = entry["outcome"] == "ok"
    return Told(client, entry["chunk"], entry["run"], entry["token"], good, digest_of(entry))


def _entries(body: bytes) -> list[dict[str, Any]]:
    if b'"results"' not in body:
        return []
    return list(json.loads(body)["results"])


def _answers(reply: bytes) -> list[dict[str, Any]]:
    try:
        message = json.loads(reply)
    except ValueError:
        return []
    return list(message.get("results", [])) if isinstance(message, dict) else []
