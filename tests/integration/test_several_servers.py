"""Two servers and two housekeepers on one database, with clients that call now one, now the other: nobody is alone."""

from __future__ import annotations

import itertools
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from history import History, broken_rules
from people import Scientist, Volunteer
from product import until

from source_server.app import create_app
from source_server.housekeeping import Housekeeper
from source_server.stores.connection import connect
from source_server.stores.database import stores_of

BEAT_S = 20.0
PATIENCE_S = 180.0
ALONE, AGREED, CANCELLED, AGAIN = 24, 10, 30, 8  #: chunks of the four tasks


@dataclass
class Weather:
    """Whether anything goes wrong just now, and what must have been kept."""

    rough: bool = True
    told: list[tuple[str, int, str]] = field(
        default_factory=list
    )  #: (chunk, run, container) answered "stored"
    failed: list[tuple[str, int, str]] = field(default_factory=list)


class Roaming(Volunteer):
    """A client container that calls any of the servers, and does not always do what it should."""

    def __init__(self, apps: Sequence[Any], account_key: str, weather: Weather, seed: int) -> None:
        self.dice = random.Random(seed)
        self.weather = weather
        self.clients = [app.test_client() for app in apps]
        self.kept: list[dict[str, Any]] = []
        super().__init__(apps[0], account_key)

    def call(self, method: str, path: str, json: Any = None, **rest: Any) -> Any:
        self._http = self.dice.choice(self.clients)
        return super().call(method, path, json, **rest)

    def step(self) -> None:
        """Claim, say so in a beat, and deliver, fail, give back or keep each chunk."""
        token = str(uuid.uuid4())
        answer = self.call("POST", "/next", {"token": token, "want": self.dice.randint(1, 3)})
        if answer.status_code == 410:
            return self.register()
        chunks = answer.get_json()["chunks"] if answer.status_code == 200 else []
        chunks = [{**chunk, "token": token} for chunk in chunks]
        if chunks:
            self.beat(started=[chunks[0]["id"]], held={token: len(chunks)})
        for chunk in chunks:
            self._treat(chunk)
        if self.kept and self.dice.random() < 0.3:
            self._deliver(self.kept.pop())
        return None

    def _treat(self, chunk: dict[str, Any]) -> None:
        fate = self.dice.random() if self.weather.rough else 0.0
        if fate < 0.6:
            self._deliver(chunk)
        elif fate < 0.7:
            self._note(self.weather.failed, chunk, self.failure(chunk, exit_code=self.dice.randint(1, 40)))
        elif fate < 0.85:
            self.kept.append(chunk)
        else:
            self.call("POST", "/release", {"chunks": [chunk["id"]]})

    def _deliver(self, chunk: dict[str, Any]) -> None:
        attempt = self.attempt(chunk, f"{chunk['n']}\n", image=self.id)
        for _ in range(
            2 if self.dice.random() < 0.2 else 1
        ):  # a lost answer: sent once more, perhaps elsewhere
            self._note(self.weather.told, chunk, attempt)

    def _note(self, kept: list[tuple[str, int, str]], chunk: dict[str, Any], attempt: Any) -> None:
        status = self.add(attempt).status_code
        assert status in (200, 409), status  # 409: its word on this chunk was taken twice already
        if status == 200:
            kept.append((chunk["id"], chunk["run"], self.id))


def housekeep(stores: Any, seed: int) -> Callable[[], None]:
    """Any step of a housekeeper of its own, for whom ten seconds pass at each look at the service."""
    leaps = itertools.count(step=10.0)
    keeper = Housekeeper(stores, beat_s=BEAT_S, monotonic=lambda: next(leaps))
    names = ("leases", "unlisted", "silence", "verdicts", "tasks", "deals", "redeal", "rounds")
    steps = [getattr(keeper, name) for name in names]
    dice = random.Random(seed)

    def once() -> None:
        stores.meta.mark_serving(stores.clock.now())
        dice.choice(steps)()

    return once


def disturb(raw: Any, crew: Sequence[Roaming], weather: Weather) -> Callable[[], None]:
    """Leases run out, containers fall silent, rests are over: as if hours went by."""
    dice, pause = random.Random(99), threading.Event()

    def once() -> None:
        past = raw.containers.find_one({"_id": crew[0].id})["registered"] - timedelta(days=1)
        raw.chunks.update_many({"state": "delayed"}, {"$set": {"not_before": past}})
        # What a client keeps for ever has to run out in any case.
        raw.chunks.update_many(
            {"leases.0": {"$exists": True}, "r": {"$gt": dice.random()}}, {"$set": {"leases.$[].until": past}}
        )
        if weather.rough:
            raw.containers.update_one({"_id": dice.choice(crew).id}, {"$set": {"last_seen": past}})
        pause.wait(0.5)

    return once


@contextmanager
def going_on(*jobs: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Each job again and again in a thread of its own; what they raised."""
    stop, raised = threading.Event(), list[BaseException]()

    def run(job: Callable[[], Any]) -> None:
        try:
            while not stop.is_set():
                job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield raised
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each answers, all of them begun together."""
    gate, answers = threading.Barrier(len(jobs)), dict[int, Any]()

    def run(place: int, job: Callable[[], Any]) -> None:
        gate.wait()
        answers[place] = job()

    threads = [threading.Thread(target=run, args=numbered) for numbered in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[place] for place in range(len(jobs))]


@pytest.fixture
def databases(stores: Any, raw: Any, mongo_uri: str) -> Iterator[list[Any]]:
    """The stores of four processes, with a connection each."""
    connected = [connect(mongo_uri, raw.name, application=f"tests {n}") for n in range(4)]
    yield [stores_of(one) for one in connected]
    for one in connected:
        one.client.close()


@pytest.fixture
def servers(databases: list[Any]) -> list[Any]:
    return [create_app(one, beat_s=BEAT_S) for one in databases[:2]]


def test_two_servers_and_two_housekeepers_finish_everything_once(
    servers: list[Any], databases: list[Any], raw: Any, stores: Any, new_key: Any, monkeypatch: Any
) -> None:
    small_deals(monkeypatch)
    key, weather = new_key("scientist"), Weather()
    here, there = (Scientist(app, key) for app in servers)
    accounts = [new_key("volunteer") for _ in range(3)]
    crew = [Roaming(servers, accounts[n % 3], weather, n) for n in range(6)]
    for who in crew:
        stores.hosts.succeeded(stores.containers.find(who.id).account, who.host, 500, 1)
    alone, again = here.task(ALONE), there.task(AGAIN)
    agreed = there.task(AGREED, project="checked", validation={"quorum": 2})
    cancelled = here.task(CANCELLED, project="vain")
    history = History(raw)
    deals = at_once(*(lambda who=who: who.ok("POST", "/assign/all") for who in (here, there, here)))

    def counts(task: str) -> dict[str, int]:
        found: dict[str, int] = here.ok("GET", f"/tasks/{task}")["chunks"]
        return found

    def ended(*tasks: str) -> bool:
        assert not raised, raised
        return all(there.ok("GET", f"/tasks/{task}")["state"] == "complete" for task in tasks)

    jobs = [*(who.step for who in crew), *(housekeep(one, n) for n, one in enumerate(databases[2:]))]
    with going_on(*jobs, disturb(raw, crew, weather)) as raised:
        until(lambda: counts(cancelled).get("done", 0) > 2, seconds=PATIENCE_S, what="some of it is done")
        at_once(*(lambda who=who: who.call("POST", f"/tasks/{cancelled}/cancel") for who in (here, there)))
        until(lambda: ended(again), seconds=PATIENCE_S, what="the task that is computed twice is done")
        at_once(
            *(
                lambda who=who: who.call("POST", f"/tasks/{again}/rerun", {"which": "all"})
                for who in (here, there)
            )
        )
        until(lambda: ended(alone, again), seconds=PATIENCE_S, what="nearly all is done, or set aside")
        weather.rough = False
        until(lambda: ended(agreed, cancelled), seconds=PATIENCE_S, what="the others ended")
        for task in (alone, agreed, again):
            here.ok("POST", "/errors/requeue", {"task": task})
        until(lambda: ended(alone, agreed, again), seconds=PATIENCE_S, what="all is done")
        until(lambda: not stores.deals.under_way(), seconds=PATIENCE_S, what="the deals are done")

    assert raised == []
    for task, total in ((alone, ALONE), (agreed, AGREED), (again, AGAIN)):
        assert counts(task) == {"total": total, "done": total}
    assert set(counts(cancelled)) <= {"total", "done", "cancelled", "quarantined"}
    assert raw.tasks.find_one({"_id": cancelled})["outcome"] == "cancelled"
    assert {one["run"] for one in raw.chunks.find({"task": again})} >= {1}
    chunks = history.versions("chunks")
    assert [fault for one in chunks.values() for fault in broken_rules(one, hedges=1)] == []
    check_deals(raw, chunks, deals)
    check_completions(history.versions("tasks"))
    check_results(raw, weather)


def small_deals(monkeypatch: Any) -> None:
    """Deals go from hand to hand: a few chunks each time, and whoever has one in hand is soon taken for dead."""
    for name, value in (
        ("BATCH", 4),
        ("IN_REQUEST", 1),
        ("IN_STEP", 2),
        ("SILENCE", timedelta(milliseconds=20)),
    ):
        monkeypatch.setattr(f"source_server.services.dispatch.assign.{name}", value)


def check_deals(raw: Any, chunks: dict[str, list[Any]], deals: Sequence[Any]) -> None:
    """What the deals count is what was written, no more and no less: no chunk was dealt to two."""
    assignments = Counter(
        after["assigned"]["container"]
        for versions in chunks.values()
        for before, after in pairwise(versions)
        if after["assigned"] is not None and after["assigned"] != before["assigned"]
    )
    stored = list(raw.deals.find())
    told = Counter[str]()
    for deal in stored:
        told.update(dict(deal["dealt"]))
    assert len(stored) >= len(deals) and all(deal["done"] for deal in stored)
    assert told and told == assignments
    assert all(
        None in (before["assigned"], after["assigned"]) or before["assigned"] == after["assigned"]
        for versions in chunks.values()
        for before, after in pairwise(versions)
    )


def check_completions(tasks: dict[str, list[Any]]) -> None:
    """A task ends once, and once more for each time that chunks of it were sent out again."""
    for name, versions in tasks.items():
        states = [one["state"] for one in versions]
        endings = [(one["ended"], one["outcome"]) for one in versions if one["state"] == "complete"]
        completed = sum(now != before and now == "complete" for before, now in pairwise(states))
        begun = sum(now != before and now == "running" for before, now in pairwise(states))
        assert states[-1] == "complete" and len(set(endings)) == completed == begun, (name, states)


def check_results(raw: Any, weather: Weather) -> None:
    """One accepted result for each chunk and run, where it belongs; all that was acknowledged, with its verdict."""
    results = list(raw.results.find())
    accepted = Counter((one["chunk"], one["run"]) for one in results if one["verdict"] == "accepted")
    assert set(accepted.values()) == {1}
    done = {(one["_id"], one["run"]) for one in raw.chunks.find({"state": "done"})}
    assert done <= set(accepted)
    assert all(one["image"] == one["container"] for one in results)
    assert set(weather.told) == {(one["chunk"], one["run"], one["container"]) for one in results}
    errors = list(raw.errors.find({"container": {"$ne": None}}))
    assert set(weather.failed) == {(one["chunk"], one["run"], one["container"]) for one in errors}
    assert not {one["verdict"] for one in (*results, *errors)} & {"new", "candidate", "disagreed"}
