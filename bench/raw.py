"""The raw baseline: what the server writes for a claim and for results, written by plain pymongo and nothing else.

The writes of one claim and one delivery through the services are recorded as they go to MongoDB: documents, guards and
write concerns. Then they are made again for other chunks, in collections with the same indexes, each in one command as
the server does. Nothing is read and nothing is decided: which chunks there are is known beforehand. What the server
takes longer than this is its reading, its deciding and, over HTTP, its speaking.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient, UpdateMany, UpdateOne
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from bench import laying
from bench.recording import Document, Ear, Names, Recording, Write, mentions
from bench.sides import BEAT_S, Client, Pool, ServiceClient
from source_server.app import build_services
from source_server.stores.database import migrate, stores_of

Chunk = tuple[str, int]  #: id and revision
Request = UpdateOne | UpdateMany


@dataclass(frozen=True)
class Recorded:
    """A claim and a delivery of one chunk by one container, as they were written."""

    claim: Recording
    delivery: Recording
    names: tuple[str, ...]  #: of the container, its life, its host and its claim token
    chunk: str

    @property
    def results(self) -> list[str]:
        """The ids under which its result was stored."""
        return [str(write.statements[0]["q"]["_id"]) for write in self.delivery.of("results")[:1]]


def record(uri: str, database: str) -> Recorded:
    """Let one container claim one chunk and deliver it, in a database of its own, and listen."""
    ear = Ear(uri, database)
    stores = stores_of(ear.database)
    migrate(stores)
    pool = Pool(stores)
    pool.have_ready(4)
    (container,) = laying.crowd(stores, 1)
    client = ServiceClient(build_services(stores, beat_s=BEAT_S), container)
    client.claim(1), client.deliver()  # what is only done the first time is done
    with ear.listening() as claim:
        won = client.claim(1)
    with ear.listening() as delivery:
        stored = client.deliver()
    assert (won, stored) == (1, 1)
    (leased,) = claim.of("chunks")
    statement = leased.statements[0]
    token = statement["u"]["$set"]["leases"][0]["token"]
    names = (container.id, container.life, container.host.id, token)
    ear.database.client.drop_database(database)
    ear.database.client.close()
    return Recorded(claim=claim, delivery=delivery, names=names, chunk=statement["q"]["_id"])


class Raw:
    """Clients that only write; a side like those that are measured."""

    name = "raw"

    def __init__(self, uri: str, database: str, recorded: Recorded) -> None:
        # The same driver settings as the server's own connection: source_server/stores/connection.py
        self._client: MongoClient[Document] = MongoClient(
            uri, tz_aware=True, retryWrites=True, maxPoolSize=64
        )
        self.database: Database[Document] = self._client[database]
        stores = stores_of(self.database)
        migrate(stores)  # the same indexes
        self._pool = Pool(stores)
        self._recorded = recorded
        self._ready: deque[Chunk] = deque()
        self._lock = threading.Lock()

    def clients(self, count: int) -> list[Client]:
        """So many clients."""
        return [RawClient(self, self._recorded) for _ in range(count)]

    def have_ready(self, count: int) -> None:
        """Lay the same documents as for the others, and note their revisions."""
        missing = count - len(self._ready)
        if missing > 0:
            before = self._pool.stores.chunks.unassigned(self._pool.task.id)
            self._pool.have_ready(before + missing)
            known = self.database.chunks.find({"state": "ready"}, {"rev": 1})
            self._ready = deque((one["_id"], one["rev"]) for one in known)

    def take(self, count: int) -> list[Chunk]:
        """Some ready chunks that nobody else will take."""
        with self._lock:
            return [self._ready.popleft() for _ in range(count)]


class RawClient:
    """Makes its requests beforehand, and then only sends them."""

    def __init__(self, raw: Raw, recorded: Recorded) -> None:
        self._raw = raw
        self._recorded = recorded
        own = [str(uuid.uuid4()) for _ in recorded.names[:3]]
        self._within = dict(zip(recorded.names[:3], own, strict=True))
        self._claims: deque[list[tuple[Write, list[Request]]]] = deque()
        self._prepared: deque[list[tuple[Write, list[Request]]]] = deque()
        self._deliveries: deque[list[tuple[Write, list[Request]]]] = deque()
        self._k = 0

    def prepare(self, k: int, claims: int) -> None:
        """Make the requests of so many claims and their deliveries."""
        self._k = k
        for _ in range(claims):
            chunks = self._raw.take(k)
            within = {**self._within, self._recorded.names[3]: str(uuid.uuid4())}
            names = [self._names(chunk, within) for chunk in chunks]
            listed = [*self._recorded.results, self._recorded.chunk]
            self._claims.append([(one, filled(one, names, listed)) for one in self._recorded.claim.writes])
            self._prepared.append(
                [(one, filled(one, names, listed)) for one in self._recorded.delivery.writes]
            )

    def claim(self, k: int) -> int:
        """Write what a claim writes."""
        self._send(self._claims.popleft())
        self._deliveries.append(self._prepared.popleft())
        return k

    def deliver(self) -> int:
        """Write what a delivery writes."""
        if not self._deliveries:
            return 0
        self._send(self._deliveries.popleft())
        return self._k

    def _send(self, writes: Sequence[tuple[Write, list[Request]]]) -> None:
        for write, requests in writes:
            send(self._raw.database, write, requests)

    def _names(self, chunk: Chunk, within: dict[str, str]) -> Names:
        """From the recorded chunk, its revisions and its result to this one's."""
        recorded = self._recorded
        equal: dict[Any, Any] = {recorded.chunk: chunk[0]}
        equal.update((result, uuid.uuid4().hex) for result in recorded.results)
        revision = chunk[1]
        for write in (*recorded.claim.of("chunks"), *recorded.delivery.of("chunks")):
            statement = write.statements[0]
            equal[statement["q"]["rev"]] = revision
            revision = equal[statement["u"]["$set"]["rev"]] = secrets.randbits(62)
        return Names(equal, within)


def filled(write: Write, chunks: Sequence[Names], listed: Sequence[str]) -> list[Request]:
    """The recorded write for these chunks: a statement for each, one with all their ids, or the same for all.

    `listed` are the recorded ids of the one chunk and its result.
    """
    made: list[Request] = []
    for statement in write.statements:
        key = statement["q"].get("_id")
        if isinstance(key, dict) and "$in" in key:
            one = chunks[0].put(statement)
            ids = [names.put(listed_id) for names in chunks for listed_id in key["$in"]]
            made.append(_request({**one, "q": {**one["q"], "_id": {"$in": ids}}}))
        elif mentions(statement, listed):
            made += [_request(names.put(statement)) for names in chunks]
        else:
            made.append(_request(chunks[0].put(statement)))
    return made


def send(database: Database[Document], write: Write, requests: Sequence[Request]) -> int:
    """One command with the recorded write concern; how many documents matched or were made."""
    concern = WriteConcern(
        w=write.concern.get("w", 1), j=write.concern.get("j"), wtimeout=write.concern.get("wtimeout")
    )
    collection = database.get_collection(write.collection, write_concern=concern)
    outcome = collection.bulk_write(list(requests), ordered=False)
    reached = outcome.matched_count + outcome.upserted_count
    assert reached >= len(requests), f"{write}: {reached} of {len(requests)}"
    return reached


def _request(statement: Document) -> Request:
    kind = UpdateMany if statement.get("multi") else UpdateOne
    return kind(statement["q"], statement["u"], upsert=bool(statement.get("upsert")))
