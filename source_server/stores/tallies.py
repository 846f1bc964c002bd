"""What limited tasks have used: one document a task, into which stored attempts are counted, each exactly once.

A stored attempt of such a task carries `uncounted` until its time is in the tally, and a result `unmatched` until it is
known whether its answer is one of those that are wanted. Counting goes in batches: one guarded write adds the batch's
time to the tally and leaves the batch's ids there; before the next batch is read those lose their mark. So a crash, or
another process, between any two of these steps counts nothing twice and leaves nothing out.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pymongo.database import Database

from source_server.domain.attempt import Verdict
from source_server.stores.gate import AlreadyThere, Document, Gate

BATCH = 500  #: attempts counted in one go
_UNDECIDED = (Verdict.NEW.value, Verdict.CANDIDATE.value)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What is counted of a task."""

    task: str
    rev: int  #: new with every write: the guard of the next one
    cpu_s: float = 0.0
    results: tuple[str, ...] = ()  #: ids of the batch that was counted last
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An accepted answer that has not been looked at."""

    id: str
    chunk: str
    text: str


class Tallies:
    """The tallies, and the marks on results and errors."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tallies")
        self._attempts = {name: Gate(database, name) for name in ("results", "errors")}

    def ensure_indexes(self) -> None:
        """What is still to count, and the answers that matched; only attempts of limited tasks are in these."""
        for gate in self._attempts.values():
            gate.index(
                [("task", 1), ("_id", 1)], name="uncounted", partialFilterExpression={"uncounted": True}
            )
        results, matched = self._attempts["results"], {"matched": {"$gt": 0}}
        due = {"unmatched": True}
        results.index([("task", 1), ("verdict", 1)], name="unmatched", partialFilterExpression=due)
        results.index([("task", 1), ("_id", 1)], name="matched", partialFilterExpression=matched)

    def read(self, task: str) -> Tally:
        """The task's tally; an empty one where nothing is counted yet."""
        found = self._gate.find_one({"_id": task})
        if found is None:
            return Tally(task=task, rev=0)
        return Tally(
            task=task,
            rev=found["rev"],
            cpu_s=found["cpu_s"],
            results=tuple(found["results"]),
            errors=tuple(found["errors"]),
        )

    def waiting(self, *, limit: int) -> list[str]:
        """Some tasks that have attempts to count, running or not."""
        found = set[str]()
        for gate in self._attempts.values():
            last = ""
            for _ in range(limit):
                query = {"uncounted": True, "task": {"$gt": last}}
                one = gate.find(query, {"task": 1}, sort=[("task", 1)], limit=1)
                if not one:
                    break
                last = one[0]["task"]
                found.add(last)
        return sorted(found)

    def count(self, task: str) -> int:
        """Count the time of one batch of attempts; how many (fewer than BATCH: that was all for now)."""
        tally = self.read(task)
        self._unmark("results", tally.results)
        self._unmark("errors", tally.errors)
        results = self._uncounted("results", task, BATCH)
        errors = self._uncounted("errors", task, BATCH - len(results))
        if not results and not errors:
            return 0
        seconds = sum(one.get("spent_s") or 0.0 for one in (*results, *errors))
        change = {
            "rev": secrets.randbits(62) + 1,
            "cpu_s": tally.cpu_s + seconds,
            "results": [one["_id"] for one in results],
            "errors": [one["_id"] for one in errors],
        }
        return len(results) + len(errors) if self._write(tally, change) else 0

    def unmatched(self, task: str, *, limit: int) -> list[Answer]:
        """Some accepted answers that have not been looked at. Those of any other verdict are done with."""
        results = self._attempts["results"]
        query = {"task": task, "unmatched": True}
        settled = {"$nin": [*_UNDECIDED, Verdict.ACCEPTED.value]}
        results.update_many({**query, "verdict": settled}, {"$unset": {"unmatched": ""}})
        accepted = {**query, "verdict": Verdict.ACCEPTED.value}
        found = results.find(accepted, {"chunk": 1, "answer": 1}, limit=limit, majority=True)
        return [Answer(id=one["_id"], chunk=one["chunk"], text=one.get("answer", "")) for one in found]

    def note_matched(self, counts: Sequence[tuple[str, int]]) -> None:
        """(id, how many of its answers match), of results that were looked at."""
        changes = [
            ({"_id": id_}, {"$set": {"matched": count}, "$unset": {"unmatched": ""}}) for id_, count in counts
        ]
        self._attempts["results"].guarded(changes)

    def answers(self, task: str) -> int:
        """How many answers match, by what has been noted; a rerun may have taken some of them back."""
        pipeline: list[Document] = [
            {"$match": {"task": task, "matched": {"$gt": 0}}},
            {"$group": {"_id": None, "answers": {"$sum": "$matched"}}},
        ]
        found = self._attempts["results"].aggregate(pipeline)
        return int(found[0]["answers"]) if found else 0

    def matched(self, task: str, *, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, chunk) of the results that match, in the order of their ids, from behind `after` on."""
        query = {"task": task, "matched": {"$gt": 0}, "_id": {"$gt": after}}
        found = self._attempts["results"].find(query, {"chunk": 1}, sort=[("_id", 1)], limit=limit)
        return [(one["_id"], one["chunk"]) for one in found]

    def forget_matched(self, ids: Sequence[str]) -> None:
        """These are not the answers of their chunks any more."""
        if ids:
            self._attempts["results"].update_many({"_id": {"$in": list(ids)}}, {"$set": {"matched": 0}})

    def _unmark(self, name: str, ids: Sequence[str]) -> None:
        if ids:
            query = {"_id": {"$in": list(ids)}, "uncounted": True}
            self._attempts[name].update_many(query, {"$unset": {"uncounted": ""}})

    def _uncounted(self, name: str, task: str, limit: int) -> list[Document]:
        # What a majority has: what a failover takes away again would be counted once more when it comes again.
        query = {"task": task, "uncounted": True}
        return self._attempts[name].find(query, {"spent_s": 1}, limit=limit, majority=True) if limit else []

    def _write(self, tally: Tally, change: Document) -> bool:
        if tally.rev:
            return self._gate.update_one({"_id": tally.task, "rev": tally.rev}, {"$set": change})
        try:
            self._gate.insert({"_id": tally.task, **change})
        except AlreadyThere:
            return False
        return True
