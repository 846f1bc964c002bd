"""Rounds under way: each lies on its task, so that beginning one and running the task again is one write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.rounds import Round
from source_server.domain.task import Task, TaskState
from source_server.stores.gate import Document, Gate
from source_server.stores.tasks import TOLD, same_rounds


class Rounds:
    """The field `round` of tasks. Only the process that has a round in hand writes it, until it falls silent."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "tasks")

    def begin(self, task: Task, round_: Round) -> bool:
        """Begin the round, and have the task run again if it was complete; whether this call did.

        False when the task has been cancelled, or another round has begun since it was read, or something is to be told
        of the task that is not in the outbox yet.
        """
        ran = [TaskState.RUNNING.value, TaskState.COMPLETE.value]
        guard = {**same_rounds(task), "state": {"$in": ran}, "sealed": True, "cancelled": False, **TOLD}
        change = {
            "round": _document(round_),
            "rounds": round_.number,
            **_RUNNING,
            "reacting": False,
            "reacted": None,
        }
        return self._gate.update_one(guard, {"$set": change})

    def reopen(self, task_id: str) -> None:
        """Have the task run (again), without a round; whoever is about to complete it must look anew."""
        guard = {"_id": task_id, "cancelled": False}
        self._gate.update_one(guard, {"$set": _RUNNING, "$inc": {"rounds": 1}})

    def under_way(self) -> list[str]:
        """The tasks that have a round under way."""
        query = {"state": TaskState.RUNNING.value, "round": {"$type": "object"}}
        return [one["_id"] for one in self._gate.find(query, {"_id": 1})]

    def take(self, task_id: str, number: int, hand: str, now: datetime, *, silent_since: datetime) -> bool:
        """Take a round in hand that nobody has, or whose process is silent since then; whether that worked."""
        free = [{"round.hand": None}, {"round.touched": {"$lt": silent_since}}]
        guard = {"_id": task_id, "round.number": number, "$or": free}
        return self._gate.update_one(guard, {"$set": {"round.hand": hand, "round.touched": now}})

    def advance(self, task_id: str, round_: Round, *, after: str, sent: int, now: datetime) -> Round | None:
        """The chunks up to `after` were looked at, `sent` of them sent out; None when the round is in other hands."""
        further = replace(round_, after=after, sent=round_.sent + sent, touched=now)
        change = {"round.after": after, "round.sent": further.sent, "round.touched": now}
        return further if self._gate.update_one(_in_hand(task_id, round_), {"$set": change}) else None

    def release(self, task_id: str, round_: Round) -> None:
        """Let another process go on with it."""
        self._gate.update_one(_in_hand(task_id, round_), {"$set": {"round.hand": None}})

    def finish(self, task_id: str, round_: Round) -> None:
        """Every chunk that it is about was sent out."""
        self._gate.update_one(_in_hand(task_id, round_), {"$set": {"round": None}})


_RUNNING = {
    "state": TaskState.RUNNING.value,
    "outcome": None,
    "ended": None,
    "ends_as": None,
    "ended_why": None,
}


def _in_hand(task_id: str, round_: Round) -> Document:
    return {
        "_id": task_id,
        "round.number": round_.number,
        "round.hand": round_.hand,
        "round.after": round_.after,
    }


def _document(round_: Round) -> Mapping[str, Any]:
    return {**asdict(round_), "which": round_.which.value, "chunks": list(round_.chunks)}
