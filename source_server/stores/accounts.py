"""Accounts and the hashes of their keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from pymongo.database import Database

from source_server.domain.account import Account, Role
from source_server.domain.enrolment import Enrolment
from source_server.domain.trust import Standing
from source_server.stores.gate import Document, Gate


class Accounts:
    """One document an account; a key is kept only as its hash."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "accounts")

    def ensure_indexes(self) -> None:
        """Names are unique; every request of a person looks a key's hash up."""
        self._gate.index([("name", 1)], name="name", unique=True)
        self._gate.index([("key_hash", 1)], name="key", unique=True, sparse=True)

    def add(self, account: Account, key_hash: str, enrolment: Enrolment | None = None) -> None:
        """Store a new account, and how it came to be if not by the operator; raises AlreadyThere."""
        self._gate.insert(
            {
                "_id": account.id,
                "name": account.name,
                "role": account.role.value,
                "pseudonym": account.pseudonym,
                "key_hash": key_hash,
                **({} if enrolment is None else {"enrolment": asdict(enrolment)}),
            }
        )

    def replace_key(self, name: str, key_hash: str) -> bool:
        """Give the account a new key, which ends the earlier one; False when there is no such account."""
        return self._gate.update_one({"name": name}, {"$set": {"key_hash": key_hash}})

    def renew(self, account_id: str, key_hash: str) -> Account | None:
        """Give the account with this id a new key, which ends the earlier one; None when there is no such account."""
        query = {"_id": account_id}
        if not self._gate.update_one(query, {"$set": {"key_hash": key_hash}}):
            return None
        found = self._gate.find_one(query)
        return None if found is None else _account(found)

    def find_by_key(self, key_hash: str) -> Account | None:
        """The account whose key has this hash, or None."""
        found = self._gate.find_one({"key_hash": key_hash})
        return None if found is None else _account(found)

    def find(self, account_id: str) -> Account | None:
        """The account with this id, or None."""
        found = self._gate.find_one({"_id": account_id})
        return None if found is None else _account(found)

    def find_with_key(self, account_id: str) -> tuple[Account, str] | None:
        """The account with this id and its key's hash; None where there is no such account, or it has no key."""
        found = self._gate.find_one({"_id": account_id})
        return None if found is None or not found.get("key_hash") else (_account(found), found["key_hash"])

    def find_by_name(self, name: str) -> Account | None:
        """The account of this name, or None."""
        found = self._gate.find_one({"name": name})
        return None if found is None else _account(found)

    def find_by_pseudonym(self, pseudonym: str) -> Account | None:
        """The account of this pseudonym, or None."""
        found = self._gate.find_one({"pseudonym": pseudonym})
        return None if found is None else _account(found)

    def all(self) -> list[Account]:
        """Every account, by name."""
        return [_account(document) for document in self._gate.find({}, sort=[("name", 1)])]

    def pseudonyms(self, ids: Iterable[str]) -> dict[str, str]:
        """account id -> pseudonym."""
        found = self._gate.find({"_id": {"$in": list(ids)}}, {"pseudonym": 1})
        return {document["_id"]: document["pseudonym"] for document in found}

    def standing(self, ids: Iterable[str]) -> dict[str, Standing]:
        """account id -> its record of agreement; unknown ids are absent."""
        shown = {"agreed": 1, "first_agreed": 1}
        found = self._gate.find({"_id": {"$in": list(ids)}}, shown)
        return {
            one["_id"]: Standing(agreed=one.get("agreed", 0), first_agreed=one.get("first_agreed"))
            for one in found
        }

    def agreed(self, account: str, now: datetime) -> None:
        """One more of its answers was found right. A lost write makes it prove itself a little longer."""
        change = {"$inc": {"agreed": 1}, "$min": {"first_agreed": now}}
        self._gate.update_one({"_id": account}, change, quick=True)

    def disagreed(self, account: str) -> None:
        """One of its answers was found wrong: it has to prove itself anew."""
        self._gate.update_one({"_id": account}, {"$set": {"agreed": 0}}, quick=True)


def _account(document: Document) -> Account:
    return Account(
        id=document["_id"],
        name=document["name"],
        role=Role(document["role"]),
        pseudonym=document["pseudonym"],
    )
