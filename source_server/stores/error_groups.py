"""The signatures under which a task's errors are kept: so many at most, each in a numbered place."""

from __future__ import annotations

from collections.abc import Iterable

from pymongo.database import Database

from source_server.domain.signature import MOST_GROUPS
from source_server.stores.gate import AlreadyThere, Document, Gate

OWN_PLACES = MOST_GROUPS - 2  #: one group is for all others, one for disagreements


class ErrorGroups:
    """One document a signature. It counts nothing: what a group comes to is asked of the errors themselves."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "error_groups")

    def ensure_indexes(self) -> None:
        """Each signature of a task once."""
        self._gate.index([("task", 1), ("signature", 1)], name="signature", unique=True)

    def admitted(self, task: str, signatures: Iterable[str]) -> set[str]:
        """Those of these signatures that have, or get, a group of their own."""
        wanted = set(signatures)
        query = {"task": task, "signature": {"$in": sorted(wanted)}}
        known = {one["signature"] for one in self._gate.find(query, {"signature": 1})}
        return known | {one for one in sorted(wanted - known) if self._admit(task, one)}

    def _admit(self, task: str, signature: str) -> bool:
        # The place's number is part of the id: two processes cannot both take the last one.
        while (place := self._gate.count({"task": task}, limit=OWN_PLACES)) < OWN_PLACES:
            try:
                self._gate.insert({"_id": f"{task} {place}", "task": task, "signature": signature})
            except AlreadyThere:
                if self._gate.find_one({"task": task, "signature": signature}, {"_id": 1}) is None:
                    continue  # another signature took the place
            return True
        return False
