"""Stored attempts: `results` (answers) and `errors` (failures). Append-only but for the verdict, which is set once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.attempt import Attempt, Origin, Outcome, Verdict, digest, signature, stored_id
from source_server.domain.chunk import Chunk
from source_server.stores.gate import Document, Gate

DIFFERENT_RESULTS = 2  #: most different results kept of one container for one chunk
DIFFERENT_ERRORS = 16  #: and errors: more than a chunk can fail before it is set aside


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What deciding about a stored attempt takes; the payload stays in the database."""

    id: str
    chunk: str
    run: int
    task: str
    origin: Origin
    token: str
    digest: str
    verdict: Verdict
    signature: str | None = None  #: of an error


class _Attempts:
    """What results and errors have in common."""

    name: str
    decide_from = (
        "chunk",
        "run",
        "task",
        "container",
        "host",
        "account",
        "token",
        "digest",
        "verdict",
        "signature",
    )

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, self.name)

    def ensure_indexes(self) -> None:
        """By chunk (a container's number of answers, a chunk's history), and what waits for its verdict."""
        self._gate.index([("chunk", 1), ("container", 1)], name="chunk")
        new = {"verdict": Verdict.NEW.value}
        self._gate.index([("stored", 1)], name="unsettled", partialFilterExpression=new)

    def put(self, documents: Sequence[Document]) -> None:
        """Store each unless it is there; a majority has all of them when this returns."""
        self._gate.put_if_absent(documents)

    def given(self, chunk_ids: Iterable[str], container: str) -> dict[str, set[str]]:
        """chunk -> ids of what this container has already delivered for it."""
        query = {"chunk": {"$in": list(chunk_ids)}, "container": container}
        found: dict[str, set[str]] = {}
        for document in self._gate.find(query, {"chunk": 1}):
            found.setdefault(document["chunk"], set()).add(document["_id"])
        return found

    def unsettled(self, *, before: datetime, limit: int) -> list[Stored]:
        """What was stored before that instant and has no verdict yet, oldest first."""
        query = {"verdict": Verdict.NEW.value, "stored": {"$lt": before}}
        return self._stored(self._gate.find(query, self._shown(), sort=[("stored", 1)], limit=limit))

    def of(self, ids: Sequence[str]) -> list[Stored]:
        """The stored attempts with these ids, as decisions need them."""
        return self._stored(self._gate.find({"_id": {"$in": list(ids)}}, self._shown()))

    def settle(self, ids: Sequence[str], verdict: Verdict) -> None:
        """Set the verdict of those that have none yet."""
        if ids:
            query = {"_id": {"$in": list(ids)}, "verdict": Verdict.NEW.value}
            self._gate.update_many(query, {"$set": {"verdict": verdict.value}})

    def _shown(self) -> dict[str, int]:
        return dict.fromkeys(self.decide_from, 1)

    @staticmethod
    def _stored(documents: Iterable[Document]) -> list[Stored]:
        return [
            Stored(
                id=one["_id"],
                chunk=one["chunk"],
                run=one["run"],
                task=one["task"],
                origin=Origin(container=one["container"], host=one["host"], account=one["account"]),
                token=one["token"],
                digest=one["digest"],
                verdict=Verdict(one["verdict"]),
                signature=one.get("signature"),
            )
            for one in documents
        ]


class Results(_Attempts):
    """Answers, each stored for good against the container, host and account that gave it."""

    name = "results"

    def full(self, ids: Sequence[str]) -> dict[str, Document]:
        """The whole documents by id, for the export."""
        return {document["_id"]: document for document in self._gate.find({"_id": {"$in": list(ids)}})}

    def drop_payload(self, ids: Sequence[str]) -> None:
        """Forget the answers of duplicates that equal the accepted one; who gave them stays."""
        if ids:
            self._gate.update_many({"_id": {"$in": list(ids)}}, {"$unset": {"answer": ""}})


class Errors(_Attempts):
    """Failed attempts, kept with exit, signal, stderr's tail and origin."""

    name = "errors"

    def ensure_indexes(self) -> None:
        """As for results, and by task for the list of errors."""
        super().ensure_indexes()
        self._gate.index([("task", 1), ("stored", 1)], name="task")

    def page(self, tasks: Sequence[str] | None, *, after: str | None, limit: int) -> list[Document]:
        """Errors of these tasks (None: of all), oldest first, from behind the one with the id `after` on."""
        query: dict[str, Any] = {} if tasks is None else {"task": {"$in": list(tasks)}}
        last = None if after is None else self._gate.find_one({"_id": after}, {"stored": 1})
        if last is not None:
            later = {"stored": {"$gt": last["stored"]}}
            query["$or"] = [later, {"stored": last["stored"], "_id": {"$gt": last["_id"]}}]
        return self._gate.find(query, sort=[("stored", 1), ("_id", 1)], limit=limit)


def result_document(attempt: Attempt, origin: Origin, chunk: Chunk, now: datetime) -> Document:
    """What is stored of an answer."""
    return {**_shared(attempt, origin, chunk, now), "answer": attempt.stdout}


def error_document(attempt: Attempt, origin: Origin, chunk: Chunk, now: datetime) -> Document:
    """What is stored of a failure."""
    return {
        **_shared(attempt, origin, chunk, now),
        "outcome": attempt.outcome.value,
        "signature": signature(attempt),
        "stderr_tail": attempt.stderr_tail,
        "stdout_tail": attempt.stdout[-1024:],
    }


def is_answer(attempt: Attempt) -> bool:
    """Whether the attempt is stored as a result, and not as an error."""
    return attempt.outcome is Outcome.OK


def _shared(attempt: Attempt, origin: Origin, chunk: Chunk, now: datetime) -> Document:
    return {
        "_id": stored_id(attempt),
        "chunk": attempt.chunk,
        "run": attempt.run,
        "task": chunk.task,
        "project": chunk.project,
        "container": origin.container,
        "host": origin.host,
        "account": origin.account,
        "token": attempt.token,
        "runtime": attempt.runtime,
        "image": attempt.image,
        "started": attempt.started,
        "ended": attempt.ended,
        "cpu_s": attempt.cpu_s,
        "exit": attempt.exit_code,
        "signal": attempt.signal,
        "digest": digest(attempt),
        "verdict": Verdict.NEW.value,
        "stored": now,
    }
