"""What the database says about itself: its schema's number, the server's secret, and who is serving."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from pymongo.database import Database

from source_server.stores.gate import Document, Gate, translated

SCHEMA = 1  #: the layout this release reads and writes


class SchemaUnknown(Exception):
    """The database was laid out by another release; the message says what to do."""


class Meta:
    """A handful of documents, each with an id of its own."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._gate = Gate(database, "meta")

    def require_replica_set(self) -> None:
        """Raises SchemaUnknown for a mongod that stands alone: it could not keep what it acknowledged."""
        with translated():
            answer: Document = self._database.client.admin.command("hello")
        if "setName" not in answer:
            raise SchemaUnknown(
                "The MongoDB must be a replica set (one member will do), not a mongod that stands alone."
            )

    def schema(self) -> int | None:
        """The number that the database carries, or None in an empty one."""
        found = self._gate.find_one({"_id": "schema"})
        return None if found is None else int(found["number"])

    def require_schema(self) -> None:
        """Raises SchemaUnknown unless this release can work with the database. Changes nothing."""
        number = self.schema()
        if number is None:
            raise SchemaUnknown("The database has no schema yet: run `dockercomp-server migrate`.")
        if number > SCHEMA:
            raise SchemaUnknown(
                f"The database carries schema {number}, this release knows {SCHEMA}: install a newer release."
            )
        if number < SCHEMA:
            raise SchemaUnknown(
                f"The database carries schema {number}, this release needs {SCHEMA}: run `dockercomp-server migrate`."
            )

    def set_schema(self) -> None:
        """Write this release's number, and make the secret if there is none yet."""
        self._gate.put_if_absent([{"_id": "secret", "value": secrets.token_bytes(32)}])
        self._gate.update_one({"_id": "schema"}, {"$set": {"number": SCHEMA}}, upsert=True)

    def secret(self) -> bytes:
        """The key that tickets are made with; the same for all servers of this database."""
        found = self._gate.find_one({"_id": "secret"})
        if found is None:
            raise SchemaUnknown("The database has no secret yet: run `dockercomp-server migrate`.")
        return bytes(found["value"])

    def mark_serving(self, now: datetime) -> None:
        """A web process says that it is at work."""
        self._gate.update_one({"_id": "serving"}, {"$max": {"seen": now}}, quick=True, upsert=True)

    def is_serving(self, now: datetime, *, within: timedelta) -> bool:
        """Whether any web process said so within this time."""
        found = self._gate.find_one({"_id": "serving"})
        return found is not None and bool(found["seen"] >= now - within)
