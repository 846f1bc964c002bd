"""Enrolment keys, by their hash; whether enrolment is open; and how many came in each hour."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from pymongo.database import Database

from source_server.domain.enrolment import REPEATABLE, Doors, EnrolmentKey, Entry
from source_server.stores.gate import AlreadyThere, Document, Gate

KEPT = timedelta(days=30)  #: how long a key that makes nothing more is known, so that its holder is told why

MOST_ENTRIES = 1000  #: the latest ones that are known of each key and each hour

_KEY, _DOORS, _HOUR = "key", "doors", "hour"


class Enrolments:
    """Three kinds of documents: `key`, by hash; `doors`, one; `hour`, one an hour with open enrolments."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "enrolments")

    def add(self, key_hash: str, key: EnrolmentKey) -> None:
        """Store a new key, and forget those that ended long ago."""
        self._gate.delete_many({"kind": _KEY, "expires": {"$lt": key.made - KEPT}})
        self._gate.delete_many({"kind": _HOUR, "at": {"$lt": key.made - KEPT}})
        self._gate.insert({"_id": key_hash, "kind": _KEY, **asdict(key)})

    def find(self, key_hash: str) -> EnrolmentKey | None:
        """The key with this hash, or None."""
        found = self._gate.find_one({"_id": key_hash, "kind": _KEY})
        return None if found is None else _key(found)

    def use(self, key_hash: str, now: datetime, entry: Entry | None = None) -> bool:
        """Take one use of the key; False when it has none left, or has expired, or this nonce took one already.

        Of two at once, one gets the last.
        """
        guard = {"_id": key_hash, "kind": _KEY, "left": {"$gt": 0}, "expires": {"$gt": now}}
        return self._gate.update_one({**guard, **_new(entry)}, {"$inc": {"left": -1}, **_noted(entry)})

    def entered(self, key_hash: str | None, nonce: str, now: datetime) -> str | None:
        """The id of the account that a request with this key (or none) and nonce was for within the last hour."""
        ids = [key_hash] if key_hash else [_hour_id(now), _hour_id(now - REPEATABLE)]
        found = self._gate.find_one({"_id": {"$in": ids}, "entries": _lately(nonce, now)}, {"entries": 1})
        if found is None:
            return None
        return str(max((one["at"], one["account"]) for one in found["entries"] if one["nonce"] == nonce)[1])

    def usable(self, now: datetime) -> list[EnrolmentKey]:
        """The keys that still make accounts, those that expire first before the others."""
        query = {"kind": _KEY, "left": {"$gt": 0}, "expires": {"$gt": now}}
        return [_key(document) for document in self._gate.find(query, sort=[("expires", 1)])]

    def doors(self) -> Doors:
        """Whether enrolment is open; closed unless somebody opened it."""
        found = self._gate.find_one({"_id": _DOORS})
        return Doors() if found is None else Doors(open=found["open"], per_hour=found["per_hour"])

    def set_doors(self, doors: Doors) -> None:
        """Open or close enrolment."""
        self._gate.update_one({"_id": _DOORS}, {"$set": {"kind": _DOORS, **asdict(doors)}}, upsert=True)

    def count_open(self, now: datetime, entry: Entry | None = None, *, at_most: int) -> bool:
        """Count one open enrolment in this hour; False when there were so many already, or this nonce came already."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        query = {"_id": _hour_id(now), "count": {"$lt": at_most}, **_new(entry)}
        change = {"$inc": {"count": 1}, "$setOnInsert": {"kind": _HOUR, "at": hour}, **_noted(entry)}
        try:
            return self._gate.update_one(query, change, upsert=True)
        except AlreadyThere:  # the hour's document is there and full, or another made it this very moment
            return self._gate.update_one(query, change)

    def opened_in(self, now: datetime) -> int:
        """How many enrolled through the open door in this hour."""
        found = self._gate.find_one({"_id": _hour_id(now)})
        return 0 if found is None else int(found["count"])


def _lately(nonce: str, now: datetime) -> Document:
    return {"$elemMatch": {"nonce": nonce, "at": {"$gt": now - REPEATABLE}}}


def _new(entry: Entry | None) -> Document:
    return {} if entry is None else {"entries": {"$not": _lately(entry.nonce, entry.at)}}


def _noted(entry: Entry | None) -> Document:
    if entry is None:
        return {}
    return {"$push": {"entries": {"$each": [asdict(entry)], "$slice": -MOST_ENTRIES}}}


def _hour_id(now: datetime) -> str:
    return f"{_HOUR} {now:%Y-%m-%dT%H}"


def _key(document: Document) -> EnrolmentKey:
    return EnrolmentKey(**{name: document[name] for name in EnrolmentKey.__dataclass_fields__})
