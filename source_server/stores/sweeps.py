"""How far the sweep of blobs is: one document, whichever process goes on with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.stores.gate import AlreadyThere, Document, Gate

ID = "blobs"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep: first it marks what is named, then it removes what is not."""

    number: int
    begun: datetime
    phase: str | None  #: None: it has ended
    after: Any = None  #: how far within the phase
    hand: str | None = None
    touched: datetime | None = None


class Sweeps:
    """The one sweep there is."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "blob_sweeps")

    def last(self) -> Sweep | None:
        """The sweep that is under way, or the last one; None before the first."""
        found = self._gate.find_one({"_id": ID})
        return None if found is None else _sweep(found)

    def begin(self, after: Sweep | None, new: Sweep) -> bool:
        """A new sweep in the place of one that has ended; whether it was this call that began it."""
        if after is None:
            try:
                self._gate.insert({"_id": ID, **asdict(new)})
            except AlreadyThere:
                return False
            return True
        guard = {"_id": ID, "number": after.number, "phase": None}
        return self._gate.update_one(guard, {"$set": asdict(new)})

    def take(self, sweep: Sweep, hand: str, now: datetime, *, silent_since: datetime) -> Sweep | None:
        """Take it in hand, if nobody has it or who has it is silent since then; as it stands, or None."""
        free = {"$or": [{"hand": None}, {"touched": {"$lt": silent_since}}]}
        guard = {"_id": ID, "number": sweep.number, "phase": {"$ne": None}, **free}
        if not self._gate.update_one(guard, {"$set": {"hand": hand, "touched": now}}):
            return None
        found = self.last()
        return found if found is not None and found.hand == hand else None

    def advance(self, sweep: Sweep) -> bool:
        """It is so far; False when another process has it in hand."""
        guard = {"_id": ID, "number": sweep.number, "hand": sweep.hand}
        change = {"phase": sweep.phase, "after": sweep.after, "touched": sweep.touched}
        return self._gate.update_one(guard, {"$set": change})

    def release(self, sweep: Sweep) -> None:
        """Let another process go on with it."""
        guard = {"_id": ID, "number": sweep.number, "hand": sweep.hand}
        self._gate.update_one(guard, {"$set": {"hand": None}})


def _sweep(document: Document) -> Sweep:
    return Sweep(**{name: value for name, value in document.items() if name != "_id"})
