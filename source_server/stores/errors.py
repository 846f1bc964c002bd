"""Stored failures, and what they have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from source_server.domain.attempt import Attempt, Origin, Outcome, Verdict
from source_server.domain.chunk import Chunk
from source_server.domain.signature import DISAGREEMENT
from source_server.stores.attempts import Attempts, shared_fields
from source_server.stores.gate import Document


@dataclass(frozen=True, kw_only=True)
class Group:
    """The errors of a task with one signature, counted."""

    task: str
    signature: str
    count: int
    chunks: int  #: distinct chunks
    hosts: int  #: distinct hosts
    accounts: int  #: distinct accounts
    first: datetime
    last: datetime


class Errors(Attempts):
    """Failed attempts, kept with exit, signal, stderr's tail and origin."""

    name = "errors"
    given_by = ("chunk", "run", "token")

    def ensure_indexes(self) -> None:
        """As for all attempts, and for lists and groups."""
        super().ensure_indexes()
        self._gate.index([("stored", 1), ("_id", 1)], name="stored")
        self._gate.index([("task", 1), ("stored", 1), ("_id", 1)], name="listed")
        self._gate.index([("task", 1), ("signature", 1), ("stored", 1)], name="group")

    def page(self, tasks: Sequence[str] | None, *, after: str | None, limit: int) -> list[Document]:
        """Errors of these tasks (None: of all), oldest first, from behind the one with the id `after` on."""
        query: dict[str, Any] = {} if tasks is None else {"task": {"$in": list(tasks)}}
        last = None if after is None else self._gate.find_one({"_id": after}, {"stored": 1})
        if last is not None:
            later = {"stored": {"$gt": last["stored"]}}
            query["$or"] = [later, {"stored": last["stored"], "_id": {"$gt": last["_id"]}}]
        return self._gate.find(query, sort=[("stored", 1), ("_id", 1)], limit=limit)

    def find(self, error_id: str) -> Document | None:
        """The error with this id, or None."""
        return self._gate.find_one({"_id": error_id})

    def read(self, ids: Sequence[str]) -> dict[str, Document]:
        """The errors with these ids, by id; unknown ids are absent."""
        return {one["_id"]: one for one in self._gate.find({"_id": {"$in": list(ids)}})}

    def count(self, task: str, signature: str, *, limit: int) -> int:
        """How many errors of the task have this signature, counting up to `limit`."""
        return self._gate.count({"task": task, "signature": signature}, limit=limit)

    def first(self, task: str, *, limit: int) -> list[tuple[datetime, str, str, str]]:
        """(instant, host, account, signature) of the task's first failed attempts."""
        query = {"task": task, "container": {"$ne": None}}
        shown = {"stored": 1, "host": 1, "account": 1, "signature": 1}
        found = self._gate.find(query, shown, sort=[("stored", 1), ("_id", 1)], limit=limit)
        return [(one["stored"], one["host"], one["account"], one["signature"]) for one in found]

    def groups(self, tasks: Sequence[str]) -> list[Group]:
        """The signatures of these tasks' errors, counted now: at most 1,000 a task."""
        totals = self._gate.aggregate(
            [
                {"$match": {"task": {"$in": list(tasks)}}},
                {
                    "$group": {
                        "_id": _GROUP,
                        "count": {"$sum": 1},
                        "first": {"$min": "$stored"},
                        "last": {"$max": "$stored"},
                    }
                },
            ]
        )
        chunks, hosts, accounts = (self._distinct(tasks, name) for name in ("chunk", "host", "account"))
        return [
            Group(
                task=row["_id"]["task"],
                signature=row["_id"]["signature"],
                count=row["count"],
                chunks=chunks.get(_key(row), 0),
                hosts=hosts.get(_key(row), 0),
                accounts=accounts.get(_key(row), 0),
                first=row["first"],
                last=row["last"],
            )
            for row in totals
        ]

    def samples(self, groups: Sequence[Group]) -> Mapping[tuple[str, str], Document]:
        """(task, signature) -> the first error of each group."""
        if not groups:
            return {}
        each = [{"task": one.task, "signature": one.signature, "stored": one.first} for one in groups]
        found = self._gate.find({"$or": each})
        return {(one["task"], one["signature"]): one for one in found}

    def _distinct(self, tasks: Sequence[str], name: str) -> dict[tuple[str, str], int]:
        # In two steps: a set of all chunks of a group might not fit into one document.
        rows = self._gate.aggregate(
            [
                {"$match": {"task": {"$in": list(tasks)}, name: {"$ne": None}}},
                {"$group": {"_id": {**_GROUP, "value": f"${name}"}}},
                {
                    "$group": {
                        "_id": {"task": "$_id.task", "signature": "$_id.signature"},
                        "count": {"$sum": 1},
                    }
                },
            ]
        )
        return {_key(row): row["count"] for row in rows}


_GROUP = {"task": "$task", "signature": "$signature"}


def _key(row: Document) -> tuple[str, str]:
    return row["_id"]["task"], row["_id"]["signature"]


@dataclass(frozen=True)
class Said:
    """The ends of what a failed program said."""

    stdout: str
    stderr: str


def error_document(
    attempt: Attempt,
    origin: Origin,
    chunk: Chunk,
    now: datetime,
    *,
    signature: str,
    said: Said,
) -> Document:
    """What is stored of a failure."""
    return {
        **shared_fields(attempt, origin, chunk, now),
        "outcome": attempt.outcome.value,
        "signature": signature,
        "stderr_tail": said.stderr,
        "stdout_tail": said.stdout,
        "duration_s": _duration_s(chunk, origin, attempt.token, now),
    }


def _duration_s(chunk: Chunk, origin: Origin, token: str, now: datetime) -> float | None:
    """How long the attempt took as the server saw it; None where its lease had ended before."""
    for lease in chunk.leases:
        if lease.container == origin.container and lease.token == token:
            return max(0.0, (now - (lease.started or lease.since)).total_seconds())
    return None


def disagreement_document(chunk: Chunk, now: datetime, *, compared: bool = True) -> Document:
    """The error of a chunk whose candidates, all that were allowed, do not agree; they stay with the chunk.

    `compared`: False where the validator that should have compared them has failed for good.
    """
    results = [candidate.result for candidate in chunk.candidates]
    named = hashlib.sha256("\n".join((chunk.id, str(chunk.run), *results)).encode()).hexdigest()[:40]
    answers = len({candidate.digest for candidate in chunk.candidates})
    sentence = f"{len(results)} results with {answers} different answers do not agree."
    if not compared:
        sentence = f"{len(results)} results could not be compared: the project's validator failed each time."
    return {
        "_id": named,
        "chunk": chunk.id,
        "run": chunk.run,
        "task": chunk.task,
        "project": chunk.project,
        **dict.fromkeys(_OF_AN_ATTEMPT),
        "cpu_s": 0.0,
        "digest": named,
        "verdict": Verdict.COUNTED.value,
        "stored": now,
        "outcome": Outcome.DISAGREEMENT.value,
        "signature": DISAGREEMENT,
        "stderr_tail": sentence,
        "stdout_tail": "",
        "candidates": results,
    }


#: What only an attempt has: a disagreement is nobody's own.
_OF_AN_ATTEMPT = (
    "container",
    "host",
    "account",
    "token",
    "runtime",
    "image",
    "started",
    "ended",
    "exit",
    "signal",
    "duration_s",
)
