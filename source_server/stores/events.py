"""Events: what came to receivers. Stored with a majority before it is acknowledged; handled by whoever comes next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from pymongo.database import Database

from source_server.domain.receiver import Event, EventState
from source_server.stores.gate import Document, Gate

_OPEN = [EventState.NEW.value, EventState.HANDLING.value]
_WITHOUT_PAYLOAD = {"payload": 0}


class Events:
    """One document an event; its id says of which receiver and what, so that one thing is stored once."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "events")

    def ensure_indexes(self) -> None:
        """Those to be handled, by project and receiver; a project's, newest first; what a receiver's hold."""
        self._gate.index([("state", 1), ("received", 1)], name="state")
        self._gate.index([("state", 1), ("kind", 1), ("project", 1), ("receiver", 1)], name="open")
        self._gate.index([("receiver", 1), ("state", 1), ("received", 1), ("_id", 1)], name="queue")
        self._gate.index([("project", 1), ("received", -1), ("_id", -1)], name="project")
        self._gate.index([("receiver", 1), ("state", 1), ("bytes", 1)], name="receiver")
        self._gate.index([("blob", 1)], name="blob", partialFilterExpression={"blob": {"$type": "string"}})

    def put(self, event: Event) -> bool:
        """Store it unless it is there; either way a majority has it afterwards. Whether this call did."""
        return event.id in self._gate.put_if_absent([_document(event)])

    def find(self, event_id: str) -> Event | None:
        """The event with this id, or None."""
        found = self._gate.find_one({"_id": event_id})
        return None if found is None else _event(found)

    def page(self, project: str, *, receiver: str | None, before: Event | None, limit: int) -> list[Event]:
        """A project's events without their payloads, newest first, from `before` on (not with it)."""
        query: Document = {"project": project, **({} if receiver is None else {"receiver": receiver})}
        if before is not None:
            earlier = {"received": {"$lt": before.received}}
            query["$or"] = [earlier, {"received": before.received, "_id": {"$lt": before.id}}]
        order = [("received", -1), ("_id", -1)]
        return [_event(one) for one in self._gate.find(query, _WITHOUT_PAYLOAD, sort=order, limit=limit)]

    def load(self, receiver: str, *, most: int) -> tuple[int, int]:
        """(events of a receiver that wait or are handled, counted up to `most`; bytes that its events hold)."""
        waiting = self._gate.count({"receiver": receiver, "state": {"$in": _OPEN}}, limit=most)
        held = {"receiver": receiver, "bytes": {"$gt": 0}}
        rows = self._gate.aggregate(
            [{"$match": held}, {"$group": {"_id": None, "bytes": {"$sum": "$bytes"}}}]
        )
        return waiting, int(rows[0]["bytes"]) if rows else 0

    def projects(self, kinds: Sequence[str]) -> list[str]:
        """Projects with events of these kinds that have not come to their end."""
        return self._gate.distinct("project", {"state": {"$in": _OPEN}, "kind": {"$in": list(kinds)}})

    def receivers(self, kinds: Sequence[str], project: str) -> list[str]:
        """The project's receivers that have such events."""
        query = {"state": {"$in": _OPEN}, "kind": {"$in": list(kinds)}, "project": project}
        return self._gate.distinct("receiver", query)

    def due(self, receiver: str, now: datetime, *, silent_since: datetime, limit: int) -> list[str]:
        """Ids of a receiver's events to be handled now, oldest first: new ones, and those whose handler is silent."""
        either = [{"receiver": receiver, **one} for one in _takeable(now, silent_since)]
        order = [("received", 1), ("_id", 1)]
        return [one["_id"] for one in self._gate.find({"$or": either}, {"_id": 1}, sort=order, limit=limit)]

    def in_hand(self, kinds: Sequence[str], project: str, *, silent_since: datetime) -> bool:
        """Whether somebody handles an event of these kinds of the project just now."""
        query = {"state": EventState.HANDLING.value, "kind": {"$in": list(kinds)}, "project": project}
        return self._gate.count({**query, "touched": {"$gte": silent_since}}, limit=1) > 0

    def first_open(self, receiver: str) -> str | None:
        """The id of a receiver's oldest event that has not come to its end, or None."""
        query = {"receiver": receiver, "state": {"$in": _OPEN}}
        found = self._gate.find(query, {"_id": 1}, sort=[("received", 1), ("_id", 1)], limit=1)
        return found[0]["_id"] if found else None

    def take(self, event_id: str, hand: str, now: datetime, *, silent_since: datetime) -> Event | None:
        """Take an event in hand that nobody has, or whose handler is silent since then; None when that failed."""
        guard = {"_id": event_id, "$or": _takeable(now, silent_since)}
        change = {"state": EventState.HANDLING.value, "hand": hand, "touched": now}
        if not self._gate.update_one(guard, {"$set": change, "$inc": {"tries": 1, "takes": 1}}):
            return None
        event = self.find(event_id)
        return event if event is not None and event.hand == hand else None

    def touch(self, event: Event, now: datetime) -> bool:
        """Say that it is still being handled; False when it is in another hand."""
        return self._gate.update_one(_in_hand(event), {"$set": {"touched": now}}, quick=True)

    def done(self, event: Event, task: str | None) -> bool:
        """Its task is there: what it brought is not needed any more."""
        change = {
            "state": EventState.DONE.value,
            "task": task,
            "why": None,
            "hand": None,
            "takes": 0,
            "payload": b"",
            "bytes": 0,
            "blob": None,
        }
        return self._gate.update_one(_in_hand(event), {"$set": change})

    def refuse(self, event: Event, why: str) -> bool:
        """It makes no task, for this reason; what it brought is kept, so that it can be handled again."""
        change = {"state": EventState.REFUSED.value, "why": why, "hand": None, "takes": 0}
        return self._gate.update_one(_in_hand(event), {"$set": change})

    def put_off(self, event: Event, why: str, until: datetime, *, fault: bool = False) -> bool:
        """Not now: it is tried again from then on."""
        change = {"state": EventState.NEW.value, "why": why, "hand": None, "not_before": until, "takes": 0}
        return self._gate.update_one(_in_hand(event), {"$set": change, "$inc": {"faults": int(fault)}})

    def again(self, event_id: str) -> bool:
        """Have a refused event handled anew; False when it is not refused."""
        guard = {"_id": event_id, "state": EventState.REFUSED.value}
        anew = {"tries": 0, "faults": 0, "takes": 0}
        change = {"state": EventState.NEW.value, "why": None, "not_before": None, **anew}
        return self._gate.update_one(guard, {"$set": change})

    def forget(self, *, done_before: datetime, refused_before: datetime) -> int:
        """Remove events that ended long ago; how many."""
        gone = self._gate.delete_many({"state": EventState.DONE.value, "received": {"$lt": done_before}})
        old = {"state": EventState.REFUSED.value, "received": {"$lt": refused_before}}
        return gone + self._gate.delete_many(old)

    def empty(self, receiver: str) -> int:
        """Its receiver is gone: let go of what its refused events brought; how many."""
        held = {"receiver": receiver, "state": EventState.REFUSED.value}
        return self._gate.update_many(held, {"$set": {"payload": b"", "bytes": 0, "blob": None}})


def _takeable(now: datetime, silent_since: datetime) -> list[Document]:
    free: Document = {"state": EventState.NEW.value, "not_before": {"$not": {"$gt": now}}}
    silent: Document = {"state": EventState.HANDLING.value, "touched": {"$lt": silent_since}}
    return [free, silent]


def _in_hand(event: Event) -> Document:
    return {"_id": event.id, "state": EventState.HANDLING.value, "hand": event.hand}


def _document(event: Event) -> Document:
    document = {**asdict(event), "_id": event.id, "state": event.state.value}
    del document["id"]
    # Names of facts come from outside: text here, never keys.
    return {**document, "about": json.dumps(event.about)}


def _event(document: Document) -> Event:
    known = {name: value for name, value in document.items() if name != "_id"}
    return Event(
        id=document["_id"],
        **{
            **known,
            "state": EventState(document["state"]),
            "about": json.loads(document["about"]),
            "payload": bytes(document.get("payload", b"")),
        },
    )
