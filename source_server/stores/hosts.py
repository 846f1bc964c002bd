"""The record of each account's hosts: what they may hold, and how their answers fared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from pymongo.database import Database

from source_server.domain.trust import HOST_LEAST, SLOT_MOST, SLOT_START, HostRecord
from source_server.stores.gate import Document, Gate

REMEMBERED = 64  #: errors whose cost a host's record has

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
_HALVED: Document = {"$ifNull": ["$halved", []]}


class Hosts:
    """One document a host of an account. Every write is quick: a lost one makes a host prove itself again."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "hosts")

    def ensure_indexes(self) -> None:
        """The few that are quarantined, and those with answers that became suspect."""
        self._gate.index(
            [("quarantined", 1)],
            name="quarantined",
            partialFilterExpression={"quarantined": {"$type": "date"}},
        )
        self._gate.index(
            [("suspects", 1)], name="suspects", partialFilterExpression={"suspects": {"$type": "date"}}
        )

    def find(self, account: str, host: str) -> HostRecord | None:
        """The record, or None for a newcomer."""
        return self.read([(account, host)]).get((account, host))

    def read(self, hosts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], HostRecord]:
        """The records of these (account, host) pairs; newcomers are absent."""
        found = self._gate.find({"_id": {"$in": [_id(account, host) for account, host in hosts]}})
        return {(one["account"], one["host"]): _record(one) for one in found}

    def all(self, account: str | None, *, limit: int = 10_000) -> list[HostRecord]:
        """The records of one account's hosts, or of all, quarantined ones first; at most so many."""
        query = {} if account is None else {"account": account}
        found = self._gate.find(query, sort=[("quarantined", -1), ("_id", 1)], limit=limit)
        return [_record(one) for one in found]

    def quarantined(self) -> list[HostRecord]:
        """The hosts that get nothing but canaries now."""
        return [_record(one) for one in self._gate.find({"quarantined": {"$type": "date"}})]

    def succeeded(self, account: str, host: str, count: int, slots: int) -> None:
        """So many attempts came to an answer: the host may hold as many more, up to a bound; no blame remains."""
        limit = {"$add": [{"$ifNull": ["$limit", SLOT_START * slots]}, count]}
        change = {"limit": {"$min": [limit, SLOT_MOST * slots]}, "blamed": 0}
        self._change(account, host, [{"$set": change}])

    def halve(self, account: str, host: str, slots: int, errors: Sequence[str] = ()) -> None:
        """An attempt failed, expired or came back: the host may hold half as many.

        What that costs is noted for these errors, in equal parts: `restore` gives it back.
        """
        before: Document = {"$ifNull": ["$limit", SLOT_START * slots]}
        after = {"$max": [{"$multiply": [before, 0.5]}, HOST_LEAST]}
        change: Document = {"limit": after}
        if errors:
            cost = {"$divide": [{"$subtract": [before, after]}, len(errors)]}
            noted = [{"error": {"$literal": one}, "cost": cost} for one in errors]
            longer = {"$slice": [{"$concatArrays": [_HALVED, noted]}, -REMEMBERED]}
            # At the least there is nothing to lose: that would only push out what did cost something.
            change["halved"] = {"$cond": [{"$gt": [before, after]}, longer, _HALVED]}
        self._change(account, host, [{"$set": change}])

    def restore(self, account: str, host: str, errors: Sequence[str], slots: int) -> bool:
        """Give back what these errors cost the host, once; whether there was any of it still."""
        query = {"_id": _id(account, host), "halved.error": {"$in": list(errors)}}
        named = {"$in": ["$$one.error", {"$literal": list(errors)}]}
        theirs = {"$filter": {"input": _HALVED, "as": "one", "cond": named}}
        more = {"$add": ["$limit", {"$sum": {"$map": {"input": theirs, "as": "one", "in": "$$one.cost"}}}]}
        most = {"$max": ["$limit", SLOT_MOST * slots]}
        rest = {"$filter": {"input": _HALVED, "as": "one", "cond": {"$not": [named]}}}
        change = [{"$set": {"limit": {"$min": [more, most]}, "halved": rest}}]
        return self._gate.update_one(query, change, quick=True)

    def agreed(self, account: str, host: str, now: datetime, *, canary: bool) -> None:
        """An answer was found right by others, or a canary was passed."""
        more = {"agreed": 1, "streak": 1, **({"passed": 1} if canary else {})}
        self._change(account, host, {"$inc": more, "$max": {"last_agreed": now}})

    def disagreed(self, account: str, host: str) -> None:
        """An answer was found wrong: trust is lost at once."""
        since = {"$ifNull": ["$last_agreed", _LONG_AGO]}
        wrong = {"$add": [{"$ifNull": ["$disagreed", 0]}, 1]}
        # What it answered unchecked since its last agreement is suspect; the earliest such instant holds until swept.
        suspects = {"$min": ["$suspects", since]}
        change = {"streak": 0, "passed": 0, "disagreed": wrong, "suspects": suspects}
        self._change(account, host, [{"$set": change}])

    def blamed(self, account: str, host: str) -> None:
        """A chunk that failed on this host succeeded on another."""
        self._change(account, host, {"$inc": {"blamed": 1}})

    def canary_failed(self, account: str, host: str) -> None:
        """A canary was not passed: the count begins anew."""
        self._change(account, host, {"$set": {"passed": 0}})

    def quarantine(self, record: HostRecord, now: datetime, why: str) -> bool:
        """From now on it gets canaries only; whether this call did it."""
        guard = {"_id": _id(record.account, record.host), "quarantined": None}
        change = {"quarantined": now, "why": why, "passed": 0}
        return self._gate.update_one(guard, {"$set": change})

    def clear(self, account: str, host: str) -> bool:
        """Its canaries, or the operator, cleared it; whether it was quarantined."""
        guard = {"_id": _id(account, host), "quarantined": {"$type": "date"}}
        cleared = {"quarantined": None, "why": None, "blamed": 0, "disagreed": 0, "passed": 0}
        return self._gate.update_one(guard, {"$set": cleared})

    def with_suspects(self) -> list[tuple[str, str, datetime]]:
        """(account, host, instant): what these hosts answered unchecked after that instant is to be marked."""
        found = self._gate.find({"suspects": {"$type": "date"}})
        return [(one["account"], one["host"], one["suspects"]) for one in found]

    def suspects_marked(self, account: str, host: str, since: datetime) -> None:
        """The marking is done, unless more has come to light meanwhile."""
        self._gate.update_one({"_id": _id(account, host), "suspects": since}, {"$set": {"suspects": None}})

    def _change(self, account: str, host: str, change: Any) -> None:
        query = {"_id": _id(account, host)}
        if isinstance(change, list):
            known = [{"$set": {"account": {"$literal": account}, "host": {"$literal": host}}}]
            self._gate.update_one(query, [*known, *change], quick=True, upsert=True)
        else:
            whole = {**change, "$setOnInsert": {"account": account, "host": host}}
            self._gate.update_one(query, whole, quick=True, upsert=True)


def _id(account: str, host: str) -> str:
    return f"{account} {host}"


_FIELDS = tuple(HostRecord.__dataclass_fields__)


def _record(document: Document) -> HostRecord:
    return HostRecord(**{name: document[name] for name in _FIELDS if name in document})
