"""The records of client containers: one write a heartbeat, and never removed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta

from pymongo.database import Database

from source_server.domain.account import BUILT_IN
from source_server.domain.container import RATE_HALF_LIFE, Container, ContainerState, Host
from source_server.stores.gate import Document, Gate

LIVE = {"state": ContainerState.LIVE.value}
PAIRS = ("labels", "resources", "shares", "cannot", "held")


class Containers:
    """One document a container; the hash of its key lies beside its record."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "containers")

    def ensure_indexes(self) -> None:
        """By key (every request), by silence (purging) and by account (its bound)."""
        self._gate.index([("key_hash", 1)], name="key", unique=True, sparse=True)
        self._gate.index([("state", 1), ("last_seen", 1)], name="silence")
        self._gate.index([("account", 1)], name="account")

    def register(self, container: Container, key_hash: str) -> bool:
        """Store the record of a new life; False when another account owns the id. Its earlier key ends."""
        document = {**_document(container), "key_hash": key_hash}
        # What others say of it, and when it first came, outlives a registration.
        kept = {name: document.pop(name) for name in ("registered", "trusted", "rate", "rate_as_of")}
        owned = {"_id": container.id, "account": container.account}
        if self._gate.update_one(owned, {"$set": document}):
            return True
        if self._gate.find_one({"_id": container.id}, {"_id": 1}) is not None:
            return False
        self._gate.insert({"_id": container.id, **document, **kept})
        return True

    def known_of(self, account: str) -> int:
        """How many records the account has, dead ones among them."""
        return self._gate.count({"account": account})

    def find(self, container_id: str) -> Container | None:
        """The record with this id, or None."""
        return _or_none(self._gate.find_one({"_id": container_id}))

    def find_by_key(self, key_hash: str) -> Container | None:
        """The container whose key has this hash, or None."""
        return _or_none(self._gate.find_one({"key_hash": key_hash}))

    def all(self, account: str | None = None, *, limit: int = 10_000) -> list[Container]:
        """Records of one account, or of all, live ones first, then by id; the oldest dead are left out at the limit."""
        query = {} if account is None else {"account": account}
        found = self._gate.find(query, sort=[("last_seen", -1)], limit=limit)
        containers = [_container(document) for document in found]
        return sorted(containers, key=lambda one: (one.state is not ContainerState.LIVE, one.id))

    def live(self, *, with_held: bool = True) -> list[Container]:
        """The live ones, by id; without what they hold they are lighter by far."""
        shown = None if with_held else {"held": 0}
        return [_container(document) for document in self._gate.find(LIVE, shown, sort=[("_id", 1)])]

    def live_lives(self) -> set[str]:
        """The current lives of live containers."""
        return {document["life"] for document in self._gate.find(LIVE, {"life": 1})}

    def beat(
        self,
        container_id: str,
        life: str,
        *,
        beat: int,
        held: Mapping[str, int],
        paused: bool,
        now: datetime,
        cannot: Mapping[str, str] | None = None,
    ) -> bool:
        """Note a beat, unless its life is over or a later one was seen; whether it was noted."""
        guard = {"_id": container_id, "life": life, "beat": {"$lt": beat}, **LIVE}
        pairs = [[token, count] for token, count in held.items()]
        refused = [[image, why] for image, why in (cannot or {}).items()]
        change = {"beat": beat, "held": pairs, "paused": paused, "cannot": refused, "last_seen": now}
        return self._gate.update_one(guard, {"$set": change}, quick=True)

    def set_trusted(self, container_id: str, trusted: bool) -> bool:
        """The operator trusts this container with validators, or no longer; False when there is none of this id."""
        return self._gate.update_one({"_id": container_id}, {"$set": {"trusted": trusted}})

    def add_accepted(self, counts: Mapping[str, int], now: datetime) -> None:
        """So many more results of each container were accepted: its rate, which forgets half in an hour, rises."""
        age = {"$subtract": [now, {"$ifNull": ["$rate_as_of", now]}]}
        halves = {"$divide": [{"$max": [age, 0]}, RATE_HALF_LIFE / timedelta(milliseconds=1)]}
        left = {"$multiply": [{"$ifNull": ["$rate", 0.0]}, {"$pow": [0.5, halves]}]}
        updates = [
            # At a steady pace of n an hour, what has not been forgotten comes to n / ln 2.
            ({"_id": one}, [{"$set": {"rate": {"$add": [left, count * math.log(2)]}, "rate_as_of": now}}])
            for one, count in counts.items()
        ]
        self._gate.guarded(updates, quick=True)

    def silent(self, before: datetime) -> list[Container]:
        """Live containers last seen before that instant."""
        found = self._gate.find({**LIVE, "last_seen": {"$lt": before}}, sort=[("last_seen", 1)])
        return [_container(document) for document in found]

    def end_life(
        self, container: Container, state: ContainerState, *, next_life: str, forget_key: bool
    ) -> bool:
        """Purge a container, or let it leave: only if it is still in the life, and as silent, as it was judged."""
        guard = {"_id": container.id, "life": container.life, "last_seen": container.last_seen, **LIVE}
        change: Document = {"$set": {"state": state.value, "life": next_life, "held": []}}
        if forget_key:
            change["$unset"] = {"key_hash": ""}
        return self._gate.update_one(guard, change)


def _document(container: Container) -> Document:
    document = asdict(container)
    del document["id"]
    document["state"] = container.state.value
    # Names chosen by a client are values here, never keys: a key may hold neither a dot nor NUL.
    for name in PAIRS:
        document[name] = [[key, value] for key, value in document[name].items()]
    document["runtimes"] = list(container.runtimes)
    document["features"] = list(container.features)
    document["projects"] = None if container.projects is None else list(container.projects)
    return document


def _container(document: Document) -> Container:
    known = {name: value for name, value in document.items() if name not in ("_id", "key_hash")}
    known["host"] = Host(**known["host"])
    known["trusted"] = known.get("trusted", False) or known["account"] == BUILT_IN
    known["state"] = ContainerState(known["state"])
    known["runtimes"] = tuple(known["runtimes"])
    known["features"] = tuple(known.get("features", ()))
    known["projects"] = None if known.get("projects") is None else tuple(known["projects"])
    for name in PAIRS:
        known[name] = dict(known.get(name, ()))
    return Container(id=document["_id"], **known)


def _or_none(document: Document | None) -> Container | None:
    return None if document is None else _container(document)
