"""Receivers: the ways into a project."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pymongo.database import Database

from source_server.domain.receiver import Receiver
from source_server.stores.gate import Document, Gate


class Receivers:
    """One document a receiver. Its settings are JSON text: their names may hold what a document's must not."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "receivers")

    def ensure_indexes(self) -> None:
        """A project's; the one whose secret came in an address; those whose time has come."""
        self._gate.index([("project", 1), ("created", 1)], name="project")
        self._gate.index([("secret_hash", 1)], name="secret", unique=True)
        self._gate.index([("kind", 1), ("next_due", 1)], name="due")

    def add(self, receiver: Receiver) -> None:
        """Store a new receiver; raises AlreadyThere."""
        self._gate.insert(
            {
                "_id": receiver.id,
                "project": receiver.project,
                "kind": receiver.kind,
                "settings": json.dumps(receiver.settings),
                "created": receiver.created,
                "secret": receiver.secret,
                "secret_hash": receiver.secret_hash,
                "planned": receiver.planned,
                "next_due": receiver.next_due,
            }
        )

    def find(self, receiver_id: str) -> Receiver | None:
        """The receiver with this id, or None."""
        return self._one({"_id": receiver_id})

    def find_by_secret(self, secret_hash: str, kind: str) -> Receiver | None:
        """The receiver of this kind whose secret has this hash, or None."""
        return self._one({"secret_hash": secret_hash, "kind": kind})

    def of_project(self, project: str, *, limit: int) -> list[Receiver]:
        """A project's receivers, oldest first."""
        found = self._gate.find({"project": project}, sort=[("created", 1), ("_id", 1)], limit=limit)
        return [_receiver(document) for document in found]

    def count(self, project: str) -> int:
        """How many a project has."""
        return self._gate.count({"project": project})

    def due(self, kind: str, now: datetime, *, limit: int) -> list[Receiver]:
        """Receivers of a kind whose time has come, or of which it is not known when it comes; longest due first."""
        query = {"kind": kind, "next_due": {"$not": {"$gt": now}}}
        return [_receiver(one) for one in self._gate.find(query, sort=[("next_due", 1)], limit=limit)]

    def note_planned(self, receiver_id: str, planned: datetime | None, next_due: datetime) -> None:
        """Every planned time up to this one has been seen to, and nothing comes before `next_due`; never goes back."""
        seen = {} if planned is None else {"planned": planned}
        self._gate.update_one({"_id": receiver_id}, {"$max": {**seen, "next_due": next_due}})

    def remove(self, receiver_id: str) -> bool:
        """Forget a receiver; False when it is gone already."""
        return self._gate.delete_many({"_id": receiver_id}) > 0

    def _one(self, query: dict[str, Any]) -> Receiver | None:
        found = self._gate.find_one(query)
        return None if found is None else _receiver(found)


def _receiver(document: Document) -> Receiver:
    known = {name: value for name, value in document.items() if name != "_id"}
    return Receiver(id=document["_id"], **{**known, "settings": json.loads(document["settings"])})
