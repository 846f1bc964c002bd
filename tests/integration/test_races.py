"""Many threads claim, deliver, give back, purge and deal the same chunks at once, on a real MongoDB.

Every write is watched: no replica is ever with two containers, none is lost, and nothing is accepted twice.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from history import History, broken_rules

from source_server.app import build_services
from source_server.domain import transitions as rules
from source_server.domain.attempt import Attempt, Outcome, stored_id
from source_server.domain.chunk import Candidate, Chunk, Lease
from source_server.domain.container import Container, ContainerState
from source_server.domain.refusal import Conflict
from source_server.services.containers.live import LiveContainers
from source_server.services.containers.purge import Purge
from source_server.services.containers.register import Application
from source_server.services.dispatch.claim import Claim, Granted
from source_server.services.dispatch.paces import Paces

BEAT_S = 20.0
CHUNKS = 30
RACERS = 6
ROUNDS = 3
STEPS = 6  #: of each racer in a round
PATIENCE_S = 120.0
MOMENT = datetime(2026, 11, 22, tzinfo=timezone.utc)


def hasty(stores: Any) -> Any:
    """A server process that believes nothing it has read before: every claim goes for the chunks themselves."""
    leaps = itertools.count(step=100.0)
    live = LiveContainers(stores, lambda: next(leaps))
    claim = Claim(
        stores,
        beat_s=BEAT_S,
        secret=stores.meta.secret(),
        live=live,
        paces=Paces(stores),
        monotonic=lambda: next(leaps),
    )
    return replace(build_services(stores, beat_s=BEAT_S), claim=claim)


@dataclass
class Racer:
    """A container that claims, delivers, gives back, and comes back after a purge, as fast as it can."""

    stores: Any
    servers: Sequence[Any]
    record: Container
    dice: random.Random
    late: list[tuple[Granted, str]] = field(
        default_factory=list
    )  #: held, or given back, and still to be delivered
    told: list[str] = field(default_factory=list)  #: ids of what was answered "stored"

    def step(self) -> None:
        """One claim, and what becomes of each chunk of it: dice decide."""
        token, me = str(uuid.uuid4()), self._living()
        for one in self._server().claim(me, token, self.dice.randint(1, 4)).granted:
            fate = self.dice.random()
            if fate < 0.4:
                self._deliver(one, token)
            elif fate < 0.6:
                self._server().give_back.chunks(me, [one.chunk.id])
            else:
                self.late.append((one, token))
                if fate < 0.8:
                    self._server().give_back.chunks(me, [one.chunk.id])
        if self.late and self.dice.random() < 0.5:
            self._deliver(*self.dice.choice(self.late))

    def finish(self) -> None:
        """Deliver all that is late, then claim and deliver until there is nothing."""
        for one, token in self.late:
            self._deliver(one, token)
        self.late.clear()
        token = str(uuid.uuid4())
        for one in self._server().claim(self._living(), token, 50).granted:
            self._deliver(one, token)

    def _server(self) -> Any:
        return self.dice.choice(self.servers)

    def _living(self) -> Container:
        found: Container = self.stores.containers.find(self.record.id)
        if found.state is ContainerState.LIVE:
            return found
        me = self.record
        again = Application(
            protocol=1,
            id=me.id,
            host=me.host,
            labels=me.labels,
            resources=me.resources,
            runtimes=me.runtimes,
            image=me.image,
        )
        account = next(one for one in self.stores.accounts.all() if one.id == me.account)
        came_back: Container = self._server().register(account, again).container
        return came_back

    def _deliver(self, one: Granted, token: str) -> None:
        attempt = Attempt(
            chunk=one.chunk.id,
            run=one.chunk.run,
            token=token,
            ticket=one.ticket,
            outcome=Outcome.OK,
            exit_code=0,
            signal=None,
            stdout=f"{one.chunk.n}\n",
            stderr_tail="",
            started=MOMENT,
            ended=MOMENT,
            cpu_s=0.0,
            runtime="process",
            image=self.record.id,  # whose it is, in the result's own words
        )
        (delivered,) = self._server().accept(self.record, [attempt])
        if delivered.refusal is None:
            self.told.append(stored_id(attempt))
        else:  # it held this chunk three times: its word was taken twice
            assert isinstance(delivered.refusal, Conflict), delivered.refusal


def at_once(*jobs: Callable[[], None]) -> None:
    """All of them in threads that begin together; raises what the first of them raised."""
    gate, raised = threading.Barrier(len(jobs)), list[BaseException]()

    def run(job: Callable[[], None]) -> None:
        gate.wait()
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@pytest.fixture
def racers(stores: Any, volunteer: Any, new_key: Any) -> list[Racer]:
    """Containers of an account each, served by two processes."""
    servers = [hasty(stores), hasty(stores)]
    made = [volunteer(account_key=new_key("volunteer")).id for _ in range(RACERS)]
    return [
        Racer(stores, servers, stores.containers.find(one), random.Random(n)) for n, one in enumerate(made)
    ]


def purge(stores: Any, raw: Any, server: Any, victim: Racer) -> list[str]:
    """Take a container for dead; the ids of those purged by this very call."""
    silent = timedelta(seconds=4 * BEAT_S)
    last_seen = stores.clock.now() - silent
    raw.containers.update_one({"_id": victim.record.id}, {"$set": {"last_seen": last_seen}})
    found: list[str] = Purge(stores, server.give_back, beat_s=BEAT_S).silent()
    return found


def settled(stores: Any, server: Any, racers: Sequence[Racer]) -> bool:
    """Housekeeping and racers until every chunk is done; False when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        server.give_back.ended_lives()
        for one in racers:
            one.finish()
        server.accept.settle(stores.clock.now() + timedelta(minutes=1))
        (task,) = stores.tasks.of_projects(None)
        if stores.chunks.counts(task.id) == {"done": CHUNKS}:
            return True
    return False


@pytest.mark.parametrize("quorum", [1, 2])
def test_no_replica_is_with_two_lost_or_accepted_twice(
    scientist: Any, stores: Any, raw: Any, racers: list[Racer], quorum: int
) -> None:
    scientist.running(CHUNKS, validation={"quorum": quorum})
    owner = raw.tasks.find_one()["owner"]
    server = racers[0].servers[0]
    history, purged = History(raw), list[str]()

    def race(one: Racer) -> Callable[[], None]:
        return lambda: [one.step() for _ in range(STEPS)] and None

    def purging(seed: int) -> Callable[[], None]:
        victims = random.Random(seed).choices(racers, k=STEPS)
        return lambda: [purged.extend(purge(stores, raw, server, one)) for one in victims] and None

    for n in range(ROUNDS):
        deal = [lambda one=one: one.assign(owner, ["sums"]) for one in racers[0].servers]
        at_once(*map(race, racers), *deal, purging(2 * n), purging(2 * n + 1))
    everything_came = settled(stores, server, racers)

    assert everything_came, stores.chunks.counts(raw.tasks.find_one()["_id"])
    versions = history.versions("chunks")
    assert [fault for one in versions.values() for fault in broken_rules(one)] == []
    assert len(purged) >= ROUNDS
    assert sum(bool(one["assigned"]) for found in versions.values() for one in found) > 0
    check_results(raw, racers, quorum)


def check_results(raw: Any, racers: Sequence[Racer], quorum: int) -> None:
    """One accepted result a chunk, every one where it belongs, all that was acknowledged, all with a verdict."""
    results = {one["_id"]: one for one in raw.results.find()}
    accepted = [one["_id"] for one in results.values() if one["verdict"] == "accepted"]
    chunks = list(raw.chunks.find())
    assert sorted(accepted) == sorted(one["result"] for one in chunks)
    assert all(one["image"] == one["container"] for one in results.values())
    assert all(
        one["answer"] == f"{one['chunk'].rpartition('.')[2]}\n" for one in map(results.get, accepted) if one
    )
    assert {told for one in racers for told in one.told} <= results.keys()
    assert not {one["verdict"] for one in results.values()} & {"new", "candidate", "disagreed"}
    for one in chunks:
        givers = [candidate["account"] for candidate in one["candidates"]]
        assert len(set(givers)) == len(givers) >= quorum, one


def test_two_deliveries_and_a_purge_of_one_lease_at_once_leave_one_accepted_result(
    scientist: Any, stores: Any, raw: Any, racers: list[Racer]
) -> None:
    one, other = racers[:2]
    history = History(raw)

    for _ in range(6):
        scientist.running(1)
        token = str(uuid.uuid4())
        (granted,) = one.servers[0].claim(one._living(), token, 1).granted
        one.servers[1].give_back.chunks(one.record, [granted.chunk.id])
        (again,) = other.servers[1].claim(other._living(), token, 1).granted
        at_once(
            lambda: one._deliver(granted, token),  # noqa: B023  # joined before the next round
            lambda: other._deliver(again, token),  # noqa: B023
            lambda: purge(stores, raw, one.servers[0], other) and None,
        )
        one.servers[0].give_back.ended_lives()

    assert [fault for found in history.versions("chunks").values() for fault in broken_rules(found)] == []
    done = list(raw.chunks.find({"state": "done"}))
    assert len(done) == raw.results.count_documents({"verdict": "accepted"}) == 6


# --- each check can fail


def lease(stores: Any, container: str) -> Lease:
    now = stores.clock.now()
    names = {"life": f"{container} life", "host": f"{container} host", "account": f"{container} account"}
    return Lease(
        token=str(uuid.uuid4()), container=container, since=now, until=now + timedelta(days=1), **names
    )


def accepted(chunk: Chunk, who: str) -> Chunk:
    names = {"account": who, "host": who, "container": who, "digest": who}
    return rules.accept(rules.propose(chunk, Candidate(result=f"{who} result", **names)), f"{who} result")


@pytest.mark.parametrize("guarded", [True, False])
def test_two_writes_from_one_reading_are_one_too_many_unless_the_revision_guards_them(
    scientist: Any, stores: Any, raw: Any, monkeypatch: Any, guarded: bool
) -> None:
    scientist.running(2)
    if not guarded:
        known = stores.chunks._gate.guarded
        bare = lambda updates, **rest: known([({"_id": one["_id"]}, new) for one, new in updates], **rest)  # noqa: E731
        monkeypatch.setattr(stores.chunks._gate, "guarded", bare)
    history = History(raw)

    leased, decided = sorted(stores.chunks.open(raw.tasks.find_one()["_id"], limit=2), key=lambda one: one.id)
    written = [
        stores.chunks.apply([change])
        for change in (
            (leased, rules.lease(leased, lease(stores, "a"))),
            (leased, rules.lease(leased, lease(stores, "b"))),
            (decided, accepted(decided, "a")),
            (decided, accepted(decided, "b")),
        )
    ]

    found = [fault for one in history.versions("chunks").values() for fault in broken_rules(one)]
    if guarded:
        assert written == [{leased.id}, set(), {decided.id}, set()] and found == []
    else:
        assert any("one write took the leases" in fault for fault in found), found
        assert any("accepted a result, then b result" in fault for fault in found), found
