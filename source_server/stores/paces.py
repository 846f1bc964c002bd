"""How long each task's recent attempts took: one small document a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo.database import Database

from source_server.stores.gate import Document, Gate

KEPT = 200  #: durations of a task


@dataclass(frozen=True, kw_only=True)
class Record:
    """The last durations in seconds, oldest first, and how all attempts ended."""

    recent: tuple[float, ...] = ()
    ok: int = 0
    failed: int = 0


class Paces:
    """Written in sums, every few seconds by each process; a lost write costs a figure some precision."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "paces")

    def find(self, task: str) -> Record:
        """What is known of the task; an empty record for a new one."""
        found = self._gate.find_one({"_id": task})
        if found is None:
            return Record()
        return Record(recent=tuple(found["recent"]), ok=found["ok"], failed=found["failed"])

    def add(self, task: str, recent: Sequence[float], *, ok: int, failed: int) -> None:
        """So many more attempts ended, and took so long."""
        change = {
            "$push": {"recent": {"$each": list(recent), "$slice": -KEPT}},
            "$inc": {"ok": ok, "failed": failed},
        }
        self._gate.update_one({"_id": task}, change, quick=True, upsert=True)
