"""The passes over very many chunks: dealing them all, and giving back what silent containers had."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.database import Database

from bench import laying
from bench.raw import filled, send
from bench.recording import Document, Ear, Names, Write
from bench.sides import BEAT_S
from source_server.app import build_services
from source_server.domain.container import Container
from source_server.services.containers.purge import Purge
from source_server.stores.connection import connect
from source_server.stores.database import Stores, migrate, stores_of

BATCH = 1000  #: chunks that one raw command writes, as in the server's own passes


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass: how its scene is laid, how it is carried out, and how its chunks look before and after."""

    what: str
    lay: Callable[[Stores, int, Sequence[Container]], None]
    go: Callable[[Stores], None]
    holders: str  #: "all", or "one": how many of the containers have all the chunks
    before: Document
    after: Document


def lay_ready(stores: Stores, count: int, _: Sequence[Container]) -> None:
    """Chunks that were dealt to nobody."""
    laying.add(stores, laying.ready_chunks(laying.running_task(stores), 0, count))


def lay_dealt(stores: Stores, count: int, holders: Sequence[Container]) -> None:
    """Chunks dealt to containers that fell silent."""
    chunks = laying.ready_chunks(laying.running_task(stores), 0, count)
    laying.add(stores, laying.dealt(chunks, holders))
    _silence(stores, holders)


def lay_leased(stores: Stores, count: int, holders: Sequence[Container]) -> None:
    """Chunks leased by containers that fell silent."""
    chunks = laying.ready_chunks(laying.running_task(stores), 0, count)
    laying.add(stores, laying.leased(chunks, holders))
    _silence(stores, holders)


def deal(stores: Stores) -> None:
    """What `/assign/all` does, in the request and after it, without housekeeping's pauses."""
    assign = build_services(stores, beat_s=BEAT_S).assign
    made = assign("bench", None).deal
    while not assign.get(made.id).done:
        assign.go_on(made.id)


def purge(stores: Stores) -> None:
    """Housekeeping's look at who is silent."""
    give_back = build_services(stores, beat_s=BEAT_S).give_back
    Purge(stores, give_back, beat_s=BEAT_S).silent()


DEALT: Document = {"state": "ready", "assigned": {"$ne": None}}
LEASED: Document = {"state": "leased"}
READY: Document = {"state": "ready", "assigned": None, "leases": []}

PASSES = (
    Pass(what="deal all", lay=lay_ready, go=deal, holders="all", before=READY, after=DEALT),
    Pass(
        what="purge one that was dealt all", lay=lay_dealt, go=purge, holders="one", before=DEALT, after=READY
    ),
    Pass(
        what="purge one that leased all", lay=lay_leased, go=purge, holders="one", before=LEASED, after=READY
    ),
    Pass(
        what="purge all that leased all", lay=lay_leased, go=purge, holders="all", before=LEASED, after=READY
    ),
)


def timed_pass(uri: str, one: Pass, *, chunks: int, containers: int) -> float:
    """Seconds of the pass, in a database of its own."""
    database = connect(uri, "bench_pass", application="bench")
    stores = _fresh(database)
    _lay(stores, one, chunks, containers)
    _require(database, one.before, chunks)
    began = time.perf_counter()
    one.go(stores)
    seconds = time.perf_counter() - began
    _require(database, one.after, chunks)
    database.client.drop_database(database.name)
    database.client.close()
    return seconds


def recorded_pass(uri: str, one: Pass) -> list[Write]:
    """What the pass writes for one chunk of one container."""
    ear = Ear(uri, "bench_pass")
    stores = _fresh(ear.database)
    _lay(stores, one, 1, 1)
    with ear.listening() as recording:
        one.go(stores)
    ear.database.client.drop_database(ear.database.name)
    ear.database.client.close()
    return recording.writes


def raw_pass(uri: str, one: Pass, writes: Sequence[Write], *, chunks: int, containers: int) -> float:
    """Seconds that the pass's writes to the chunks take by plain pymongo, a thousand in a command."""
    (write,) = [write for write in writes if write.collection == "chunks"]
    (statement,) = write.statements
    database: Database[Document] = connect(uri, "bench_pass", application="bench")
    stores = _fresh(database)
    holders = _lay(stores, one, chunks, containers)
    known = [(found["_id"], found["rev"]) for found in database.chunks.find({}, {"rev": 1})]
    names = [
        _names(statement, chunk, rev, holders[place % len(holders)])
        for place, (chunk, rev) in enumerate(known)
    ]
    listed = _ids(statement)
    requests = [filled(write, names[begin : begin + BATCH], listed) for begin in range(0, len(names), BATCH)]
    began = time.perf_counter()
    for batch in requests:
        send(database, write, batch)
    seconds = time.perf_counter() - began
    database.client.drop_database(database.name)
    database.client.close()
    return seconds


def sweeps(uri: str, *, chunks: int, containers: int) -> dict[str, float]:
    """Milliseconds of what housekeeping looks at all the time, with nothing to do but very much to look past."""
    database = connect(uri, "bench_pass", application="bench")
    stores = _fresh(database)
    crowd = laying.crowd(stores, containers)
    task = laying.running_task(stores)
    laying.add(stores, laying.dealt(laying.ready_chunks(task, 0, chunks), crowd))
    laying.add(stores, laying.leased(laying.ready_chunks(task, chunks, chunks), crowd))
    other = laying.running_task(stores)
    laying.add(stores, laying.ready_chunks(other, 0, chunks))
    now = stores.clock.now()
    resting = {"state": "delayed", "not_before": now + timedelta(hours=1)}
    database.chunks.update_many({"task": other.id}, {"$set": resting})
    give_back = build_services(stores, beat_s=BEAT_S).give_back
    looks: dict[str, Callable[[], Any]] = {
        "what ended lives hold": give_back.ended_lives,
        "what is not listed": lambda: give_back.unlisted(BEAT_S),
        "expired leases": lambda: give_back.expired(now),
        "chunks whose pause is over": lambda: stores.chunks.rested(now, limit=BATCH),
        "who is silent": lambda: purge(stores),
    }
    figures = {}
    for what, look in looks.items():
        began = time.perf_counter()
        look()
        figures[what] = round(1000 * (time.perf_counter() - began), 1)
    database.client.drop_database(database.name)
    database.client.close()
    return figures


def _fresh(database: Database[Document]) -> Stores:
    database.client.drop_database(database.name)
    stores = stores_of(database)
    migrate(stores)
    return stores


def _lay(stores: Stores, one: Pass, chunks: int, containers: int) -> Sequence[Container]:
    crowd = laying.crowd(stores, containers)
    holders = crowd if one.holders == "all" else crowd[:1]
    one.lay(stores, chunks, holders)
    return holders


def _names(statement: Document, chunk: str, rev: int, holder: Container) -> Names:
    equal: dict[Any, Any] = {_ids(statement)[0]: chunk}
    if "rev" in statement["q"]:
        equal[statement["q"]["rev"]] = rev
    recorded = statement["q"].get("assigned") or statement["u"]["$set"].get("assigned")
    if recorded:
        equal |= {recorded["container"]: holder.id, recorded["life"]: holder.life}
    return Names(equal, {})


def _ids(statement: Document) -> list[str]:
    key = statement["q"]["_id"]
    return list(key["$in"]) if isinstance(key, dict) else [str(key)]


def _silence(stores: Stores, containers: Sequence[Container]) -> None:
    for one in containers:
        long_ago = one.last_seen - timedelta(hours=1)
        stores.containers.beat(one.id, one.life, beat=1, held={}, paused=False, now=long_ago)


def _require(database: Database[Document], query: Document, count: int) -> None:
    found = database.chunks.count_documents(query)
    assert found == count, f"{found} of {count} chunks are {query}"
