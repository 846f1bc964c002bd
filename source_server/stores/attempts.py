"""Stored attempts: answers here, failures in `errors`. Append-only but for the verdict, which is set once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from pymongo.database import Database

from source_server.domain.attempt import (
    BAD_DATA,
    Attempt,
    Origin,
    Outcome,
    Verdict,
    digest,
    stored_id,
)
from source_server.domain.chunk import Chunk
from source_server.domain.tickets import variant_of
from source_server.stores.gate import Document, Gate

DIFFERENT_RESULTS = 2  #: most different results kept of one container for one run of a chunk
DIFFERENT_ERRORS = 2  #: and errors for one lease
#: Letters that are kept of what a good attempt wrote to stderr; of a failed one there is more.
STDERR_KEPT = 1024


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
    bad_data: bool = False  #: of an error: exit 65
    platform: str = ""  #: of a result: see `same` of a quorum
    established: bool = False  #: of a result: whether its account had a long record of agreement
    canary: bool = False  #: of a result: it came under a lease that was only a test
    variant: str = ""  #: of the job: in which of its images it was computed


class Attempts:
    """What results and errors have in common."""

    name: str
    given_by: tuple[str, ...] = ("chunk", "run")  #: within which a container's different ones are counted
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
        "exit",
        "platform",
        "established",
        "canary",
        "variant",
    )

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, self.name)

    def ensure_indexes(self) -> None:
        """By chunk (a container's number of answers, a chunk's history), and what waits for its verdict."""
        self._gate.index([("chunk", 1), ("container", 1)], name="chunk")
        new = {"verdict": Verdict.NEW.value}
        self._gate.index([("stored", 1)], name="unsettled", partialFilterExpression=new)

    def put(self, documents: Sequence[Document]) -> set[str]:
        """Store each unless it is there; a majority has all of them when this returns. The ids that were new."""
        return self._gate.put_if_absent(documents)

    def given(self, chunk_ids: Iterable[str], container: str) -> dict[tuple[str | int, ...], set[str]]:
        """What of `given_by` -> digests of what this container has already delivered for these chunks."""
        query = {"chunk": {"$in": list(chunk_ids)}, "container": container}
        found: dict[tuple[str | int, ...], set[str]] = {}
        for document in self._gate.find(query, dict.fromkeys((*self.given_by, "digest"), 1)):
            found.setdefault(tuple(document[name] for name in self.given_by), set()).add(document["digest"])
        return found

    def history(self, chunk: str, *, limit: int) -> list[Document]:
        """The chunk's newest attempts, newest first, without what they said."""
        unread = {"answer": 0, "stdout_tail": 0, "stderr_tail": 0}
        return self._gate.find({"chunk": chunk}, unread, sort=[("stored", -1)], limit=limit)

    def unsettled(self, *, before: datetime, limit: int) -> list[Stored]:
        """What a majority has since before that instant, without a verdict yet: the oldest and the newest.

        Never what a primary alone has: a failover could take it away after a chunk was pointed at it. Not the oldest
        alone: some that nothing can be said about must not hide the others.
        """
        query = {"verdict": Verdict.NEW.value, "stored": {"$lt": before}}
        found: dict[str, Document] = {}
        for order in ([("stored", 1)], [("stored", -1)]):
            some = self._gate.find(query, self._shown(), sort=order, limit=(limit + 1) // 2, majority=True)
            found |= {one["_id"]: one for one in some}
        return self._stored(found.values())

    def of(self, ids: Sequence[str]) -> list[Stored]:
        """The stored attempts with these ids, as decisions need them."""
        return self._stored(self._gate.find({"_id": {"$in": list(ids)}}, self._shown()))

    def settle(self, ids: Sequence[str], verdict: Verdict) -> set[str]:
        """Set the verdict of those that have none yet; a candidate's is still to come.

        Answers which of them got it from this very call, so that each is counted by one process only.
        """
        if not ids:
            return set()
        mark = secrets.token_hex(8)
        open_ = [Verdict.NEW.value, *([] if verdict is Verdict.CANDIDATE else [Verdict.CANDIDATE.value])]
        query = {"_id": {"$in": list(ids)}, "verdict": {"$in": open_}}
        change = {"$set": {"verdict": verdict.value, "settled_by": mark}}
        if self._gate.update_many(query, change) == len(ids):
            return set(ids)
        own = self._gate.find({"_id": {"$in": list(ids)}, "settled_by": mark}, {"_id": 1})
        return {one["_id"] for one in own}

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
                bad_data=one.get("exit") == BAD_DATA,
                platform=one.get("platform", ""),
                established=one.get("established", False),
                canary=one.get("canary", False),
                variant=one.get("variant", ""),
            )
            for one in documents
        ]


class Results(Attempts):
    """Answers, each stored for good against the container, host and account that gave it."""

    name = "results"

    def ensure_indexes(self) -> None:
        """As for all attempts, what a host answered without a second opinion, and what became suspect of it."""
        super().ensure_indexes()
        waiting = {"verdict": Verdict.CANDIDATE.value}
        self._gate.index([("verdict", 1), ("_id", 1)], name="waiting", partialFilterExpression=waiting)
        unchecked = {"unchecked": True}
        self._gate.index(
            [("account", 1), ("host", 1), ("stored", 1)], name="unchecked", partialFilterExpression=unchecked
        )
        brought = {"files.sha256": {"$exists": True}}
        self._gate.index([("chunk", 1), ("_id", 1)], name="files", partialFilterExpression=brought)
        suspect = {"suspect": True}
        self._gate.index([("task", 1), ("_id", 1)], name="suspect", partialFilterExpression=suspect)

    def waiting(self, *, before: datetime, limit: int) -> list[Stored]:
        """Some candidates stored before that instant, from a random place on: nearly all wait for others, but one
        whose verdict a crash swallowed is found in time."""
        query = {"verdict": Verdict.CANDIDATE.value, "stored": {"$lt": before}}
        start = {"_id": {"$gte": secrets.token_hex(20)}}
        order = [("_id", 1)]
        found = self._gate.find({**query, **start}, self._shown(), sort=order, limit=limit)
        if len(found) < limit:
            found += self._gate.find(query, self._shown(), sort=order, limit=limit - len(found))
        return self._stored({one["_id"]: one for one in found}.values())

    def files(self, ids: Sequence[str]) -> dict[str, list[Document]]:
        """id -> {name, sha256, bytes} of the files that came with each of these answers; those without are absent."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, {"files": 1})
        return {one["_id"]: one["files"] for one in found if one.get("files")}

    def answers(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> answer; those whose payload was dropped are absent."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, {"answer": 1})
        return {one["_id"]: one["answer"] for one in found if "answer" in one}

    def mark_unchecked(self, ids: Sequence[str]) -> None:
        """These were accepted without a second opinion."""
        if ids:
            self._gate.update_many({"_id": {"$in": list(ids)}}, {"$set": {"unchecked": True}})

    def mark_suspect(self, account: str, host: str, since: datetime) -> int:
        """What this host answered unchecked after that instant is suspect; how many results."""
        query = {"account": account, "host": host, "stored": {"$gt": since}, "unchecked": True}
        return self._gate.update_many({**query, "suspect": {"$ne": True}}, {"$set": {"suspect": True}})

    def suspects(self, ids: Sequence[str]) -> set[str]:
        """Which of these results are suspect."""
        query = {"_id": {"$in": list(ids)}, "unchecked": True, "suspect": True}
        return {one["_id"] for one in self._gate.find(query, {"_id": 1})}

    def suspects_of(self, task: str, *, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, chunk) of the task's suspect results, in the order of their ids, from behind `after` on."""
        query = {"task": task, "suspect": True, "_id": {"$gt": after}}
        found = self._gate.find(query, {"chunk": 1}, sort=[("_id", 1)], limit=limit)
        return [(one["_id"], one["chunk"]) for one in found]

    def first(self, task: str, *, limit: int) -> list[tuple[datetime, str, str]] | None:
        """(instant, host, account) of the task's answers, earliest first; None where there are more than `limit`."""
        # No index by task, which every result would have to pay for: a chunk's id begins with its task's.
        ids = {"chunk": {"$gte": f"{task}.", "$lt": f"{task}/"}}
        found = self._gate.find(ids, {"stored": 1, "host": 1, "account": 1}, limit=limit + 1)
        if len(found) > limit:
            return None
        return sorted((one["stored"], one["host"], one["account"]) for one in found)

    def full(self, ids: Sequence[str]) -> dict[str, Document]:
        """The whole documents by id, for the export."""
        return {document["_id"]: document for document in self._gate.find({"_id": {"$in": list(ids)}})}

    def verdicts(self, chunk_ids: Sequence[str]) -> list[tuple[str, str]]:
        """(variant, verdict) of every answer to these chunks."""
        found = self._gate.find({"chunk": {"$in": list(chunk_ids)}}, {"variant": 1, "verdict": 1})
        return [(one.get("variant", ""), one["verdict"]) for one in found]

    def drop_payload(self, ids: Sequence[str]) -> None:
        """Forget the answers of duplicates that equal the accepted one; who gave them stays."""
        if ids:
            self._gate.update_many({"_id": {"$in": list(ids)}}, {"$unset": {"answer": ""}})


def result_document(
    attempt: Attempt,
    origin: Origin,
    chunk: Chunk,
    now: datetime,
    *,
    platform: str = "",
    established: bool = False,
    unchecked: bool = False,
    self_test: str = "unknown",
) -> Document:
    """What is stored of an answer. `unchecked`: its task takes the first answer, with no second opinion.

    `self_test`: of the container's sandbox, by the server's own record.
    """
    return {
        **shared_fields(attempt, origin, chunk, now),
        "answer": attempt.stdout,
        **({"files": [asdict(one) for one in attempt.files]} if attempt.files else {}),
        **({"stderr_tail": attempt.stderr_tail[-STDERR_KEPT:]} if attempt.stderr_tail else {}),
        "platform": platform,
        "established": established,
        "self_test": self_test,
        **({"unchecked": True} if unchecked else {}),
        "canary": any(lease.canary and lease.container == origin.container for lease in chunk.leases),
    }


def is_answer(attempt: Attempt) -> bool:
    """Whether the attempt is stored as a result, and not as an error."""
    return attempt.outcome is Outcome.OK


def shared_fields(attempt: Attempt, origin: Origin, chunk: Chunk, now: datetime) -> Document:
    """What is stored of an answer as of a failure."""
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
        "variant": variant_of(attempt.ticket),
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
