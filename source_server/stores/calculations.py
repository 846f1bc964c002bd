"""Calculations that people asked for, and what the operator has enabled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from pymongo.database import Database

from source_server.domain.calculation import Asked, Calculation, Calculators, Environment
from source_server.stores.gate import Document, Gate

KEPT = timedelta(days=90)  #: how long a calculation is listed
SETTING = "calculators"


class Calculations:
    """One document a calculation; its answer is its chunk's. The setting is one document in `calculators`."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "calculations")
        self._setting = Gate(database, "calculators")

    def ensure_indexes(self) -> None:
        """Each account's newest, by its own keys, and what has not been handed over yet."""
        self._gate.index([("account", 1), ("_id", -1)], name="account")
        self._gate.index([("account", 1), ("key", 1)], name="key", unique=True)
        self._gate.index([("unsent", 1), ("_id", 1)], name="unsent", partialFilterExpression={"unsent": True})

    def setting(self) -> Calculators | None:
        """What is enabled, or None."""
        found = self._setting.find_one({"_id": SETTING})
        return None if found is None else _setting(found)

    def enable(self, setting: Calculators, *, generation: int | None) -> bool:
        """Set what is enabled in the place of that generation (None: of nothing); False when it is another's by now."""
        document = {**asdict(setting), "_id": SETTING}
        if generation is None:
            return bool(self._setting.put_if_absent([document]))
        return self._setting.update_one({"_id": SETTING, "generation": generation}, {"$set": document})

    def disable(self) -> bool:
        """Forget what is enabled; False when nothing is."""
        return self._setting.delete_many({"_id": SETTING}) > 0

    def add(self, asked: Asked) -> None:
        """Store a calculation that is to be handed over; raises AlreadyThere for a key that was used."""
        self._gate.insert({**_document(asked), "unsent": True})

    def by_key(self, account: str, key: str) -> Asked | None:
        """The calculation that this account asked for under this key, or None."""
        found = self._gate.find_one({"account": account, "key": key})
        return None if found is None else _asked(found)

    def confirm(self, asked: Asked) -> bool:
        """Whether a majority has it that this calculation is that row of that task."""
        return self._gate.confirm({"_id": asked.id, "task": asked.task, "n": asked.n})

    def handed_over(self, asked_id: str, task: str, n: int) -> None:
        """It is that task's row n."""
        change = {"$set": {"task": task, "n": n}, "$unset": {"unsent": ""}}
        self._gate.update_one({"_id": asked_id, "unsent": True}, change)

    def remove(self, asked_id: str) -> None:
        """Forget a calculation that could not be handed over."""
        self._gate.delete_many({"_id": asked_id, "unsent": True})

    def unsent(self, before: str, *, limit: int) -> list[Asked]:
        """The oldest that were asked for before that id and not handed over: who took them in died, or does so now."""
        query = {"unsent": True, "_id": {"$lt": before}}
        return [_asked(one) for one in self._gate.find(query, sort=[("_id", 1)], limit=limit)]

    def page(self, account: str | None, *, after: str, limit: int) -> list[Asked]:
        """The newest behind that id, newest first; of one account, or of all."""
        query = {"_id": {"$gt": after}, **_of(account)}
        return [_asked(one) for one in self._gate.find(query, sort=[("_id", -1)], limit=limit)]

    def read(self, account: str | None, ids: Sequence[str]) -> list[Asked]:
        """Those with these ids; of one account, or of all."""
        return [_asked(one) for one in self._gate.find({"_id": {"$in": list(ids)}, **_of(account)})]

    def count(self, account: str, *, after: str, at_most: int) -> int:
        """How many this account asked for behind that id, counting up to `at_most`."""
        return self._gate.count({"account": account, "_id": {"$gt": after}}, limit=at_most)

    def forget(self, before: str, *, limit: int) -> int:
        """Remove so many of those before that id; how many. Their results stay with their task."""
        query = {"_id": {"$lt": before}}
        ids = [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=limit)]
        return self._gate.delete_many({"_id": {"$in": ids}}) if ids else 0


def first_id(moment: datetime) -> str:
    """The least id of that moment: ids begin with their milliseconds."""
    return f"{int(moment.timestamp() * 1000):012x}"


def id_before(asked_id: str, pause: timedelta) -> str:
    """The least id of the moment that lies so long before the one of this id; the id itself where it is none."""
    try:
        milliseconds = int(asked_id[:12], 16) - int(pause.total_seconds() * 1000)
    except ValueError:
        return asked_id
    return f"{max(0, milliseconds):012x}"


def _of(account: str | None) -> Document:
    return {} if account is None else {"account": account}


def _document(asked: Asked) -> Document:
    document = {**asdict(asked), "_id": asked.id}
    del document["id"]
    return document


def _asked(document: Document) -> Asked:
    known: dict[str, Any] = {
        name: document[name] for name in Asked.__dataclass_fields__ if name not in ("id", "calculation")
    }
    return Asked(id=document["_id"], calculation=Calculation(**document["calculation"]), **known)


def _setting(document: Document) -> Calculators:
    known = {name: document[name] for name in Calculators.__dataclass_fields__ if name != "environments"}
    environments = tuple(
        Environment(**{**one, "action": tuple(one["action"])}) for one in document["environments"]
    )
    return Calculators(environments=environments, **known)
