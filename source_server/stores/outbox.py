"""Messages that go out about tasks, each under an id made of what it is about; and the projects' keys to sign them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from pymongo.database import Database

from source_server.domain.notice import Channel, Event, Notice, NoticeState, Target
from source_server.stores.gate import Document, Gate

SHOWN = 50  #: newest messages of one task that are shown
FAIR = 20  #: of one account, at most so many of those that are tried together


class Outbox:
    """Written once each; afterwards only who has a message in hand changes it."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "outbox")

    def ensure_indexes(self) -> None:
        """What is due, a task's messages, and how many of an account's, or to one address, went out lately."""
        self._gate.index([("due", 1)], name="due", partialFilterExpression={"state": "waiting"})
        self._gate.index([("task", 1), ("created", -1)], name="task")
        self._gate.index([("owner", 1), ("target.channel", 1), ("tried", 1)], name="rate_of_owner")
        self._gate.index([("to", 1), ("tried", 1)], name="rate_to")
        self._gate.index([("ended", 1)], name="ended", partialFilterExpression={"ended": {"$type": "date"}})

    def put(self, notices: Sequence[Notice]) -> None:
        """Store each unless it is there already."""
        if notices:
            self._gate.put_if_absent([_document(one) for one in notices])

    def due(self, now: datetime, *, limit: int) -> list[Notice]:
        """Messages to be tried now, longest due first; of one account only some."""
        query = {"state": NoticeState.WAITING.value, "due": {"$lte": now}}
        chosen: list[Document] = []
        full: list[str | None] = []
        while len(chosen) < limit:
            rest = {"owner": {"$nin": full}, "_id": {"$nin": [one["_id"] for one in chosen]}}
            found = self._gate.find({**query, **rest}, sort=[("due", 1)], limit=limit)
            before = len(chosen)
            for one in found:
                owner = one.get("owner")
                count = sum(other.get("owner") == owner for other in chosen)
                if count < FAIR and len(chosen) < limit:
                    chosen.append(one)
                elif owner not in full:
                    full.append(owner)
            if len(chosen) == before or len(found) < limit:
                break
        return [_notice(one) for one in chosen]

    def take(self, notice: Notice, until: datetime, now: datetime) -> bool:
        """Take a message in hand for one try; nobody else does until then. Whether this call has it."""
        guard = {**_waiting(notice), "due": notice.due}
        change = {"$set": {"due": until, "tried": now}, "$inc": {"tries": 1}}
        return self._gate.update_one(guard, change)

    def put_off(self, notice: Notice, due: datetime, last: str) -> None:
        """Not now: as many have gone out as may; this was no try."""
        guard = {**_waiting(notice), "due": notice.due}
        self._gate.update_one(guard, {"$set": {"due": due, "last": last}})

    def note(
        self, notice: Notice, state: NoticeState, due: datetime | None, last: str, now: datetime
    ) -> None:
        """How the try that `take` began has ended."""
        guard = {**_waiting(notice), "tries": notice.tries + 1}
        ended = None if state is NoticeState.WAITING else now
        change = {"state": state.value, "due": due, "last": last, "ended": ended}
        self._gate.update_one(guard, {"$set": change})

    def tried_since(self, owner: str | None, channel: Channel, since: datetime, *, limit: int) -> int:
        """How many messages about the account's tasks were tried since then, counting up to `limit`."""
        query = {"owner": owner, "target.channel": channel.value, "tried": {"$gt": since}}
        return self._gate.count(query, limit=limit)

    def mailed_since(self, address: str, since: datetime, *, limit: int) -> int:
        """How many messages to this e-mail address were tried since then, whoever's, counting up to `limit`."""
        return self._gate.count({"to": address.casefold(), "tried": {"$gt": since}}, limit=limit)

    def of_task(self, task: str, *, since: datetime) -> list[Notice]:
        """The task's newest messages, newest first; none of a deleted task that had its id before it was made."""
        query = {"task": task, "created": {"$gte": since}}
        return [_notice(one) for one in self._gate.find(query, sort=[("created", -1)], limit=SHOWN)]

    def remove_old(self, now: datetime, *, keep: timedelta, limit: int) -> int:
        """Forget some that ended long ago; how many."""
        query = {"ended": {"$lt": now - keep}, "state": {"$ne": NoticeState.WAITING.value}}
        ids = [one["_id"] for one in self._gate.find(query, {"_id": 1}, limit=limit)]
        return self._gate.delete_many({"_id": {"$in": ids}}) if ids else 0


class WebhookKeys:
    """One document a project: the key that its webhooks are signed with, and the one before."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "webhook_keys")

    def replace(self, project: str, key: bytes, now: datetime) -> None:
        """A new key; the one before it goes on signing, beside it, for those who have not changed over yet."""
        change = [
            {"$set": {"before": {"$ifNull": ["$key", None]}, "key": {"$literal": key}, "since": now}},
        ]
        self._gate.update_one({"_id": project}, change, upsert=True)

    def ensure(self, project: str, key: bytes, now: datetime) -> None:
        """This key, unless the project has one."""
        self._gate.put_if_absent([{"_id": project, "key": key, "before": None, "since": now}])

    def read(self, project: str, *, changed_since: datetime) -> list[bytes]:
        """The keys to sign with, newest first: two where the change was after that instant."""
        found = self._gate.find_one({"_id": project})
        if found is None:
            return []
        before = [found["before"]] if found["before"] and found["since"] > changed_since else []
        return [bytes(key) for key in (found["key"], *before)]


def _waiting(notice: Notice) -> Document:
    return {"_id": notice.id, "state": NoticeState.WAITING.value}


def _document(notice: Notice) -> Document:
    document = {**asdict(notice), "_id": notice.id, "event": notice.event.value, "state": notice.state.value}
    del document["id"]
    document["target"] = {"channel": notice.target.channel.value, "address": notice.target.address}
    if notice.target.channel is Channel.EMAIL:
        document["to"] = notice.target.address.casefold()
    return document


def _notice(document: Document) -> Notice:
    known = {name: value for name, value in document.items() if name not in ("_id", "tried", "to")}
    target = document["target"]
    return Notice(
        id=document["_id"],
        **{
            **known,
            "event": Event(document["event"]),
            "state": NoticeState(document["state"]),
            "target": Target(channel=Channel(target["channel"]), address=target["address"]),
        },
    )
