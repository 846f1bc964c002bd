"""What is asked for again is acknowledged only once a majority of a real replica set has it."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from calculating import enable
from faults.replica_set import ReplicaSet, three_members
from people import Scientist, Volunteer
from product import until

from source_server.app import create_app
from source_server.domain.account import Role
from source_server.services.accounts.people import People
from source_server.services.files.blobs import Blobs
from source_server.stores.connection import connect
from source_server.stores.database import migrate, stores_of

pytestmark = pytest.mark.mongo

Call = Callable[[], Any]

BODY, FILE = b"a,b\n1,2\n3,4\n", b"a file of some bytes"
SHA = hashlib.sha256(FILE).hexdigest()
JOB = {"action": ["/bin/cat"]}
RUN = {"id": "a-run", "file": "dockercomp: 1\nmain:\n  action: [echo, hello]\n"}
ROWS = {"rows": [{"a": "1"}], "key": "monday"}
NONCE = str(uuid.uuid4())


@pytest.fixture
def replicas(mongod_binary: Path) -> Iterator[ReplicaSet]:
    """Three members, of which two can be kept from hearing what the primary writes."""
    with three_members(mongod_binary) as made:
        yield made


@contextmanager
def held(replicas: ReplicaSet) -> Iterator[None]:
    """Nothing that the primary writes reaches the others meanwhile."""
    primary = replicas.find_primary()
    assert primary is not None
    replicas.hold_replication(held=True, besides=primary)
    try:
        yield
    finally:
        replicas.hold_replication(held=False, besides=primary)


def at_once(calls: dict[str, Call]) -> dict[str, int]:
    """The status of each call, all of them made together: each waits for as long as the database is given."""
    with ThreadPoolExecutor(len(calls)) as pool:
        made = {name: pool.submit(call) for name, call in calls.items()}
        return {name: one.result().status_code for name, one in made.items()}


class Everything:
    """All that may be sent again: what has to be there before, and the requests."""

    def __init__(self, stores: Any) -> None:
        self.app = create_app(stores, beat_s=20.0)
        people = People(stores)
        self.keys = {role: people.add(role.value, role) for role in (Role.SCIENTIST, Role.VOLUNTEER)}
        self.who, scientist = Volunteer(self.app, self.keys[Role.VOLUNTEER]), self.scientist()
        scientist.ok("POST", "/projects", {"name": "sums"})
        self.task = self._task("with-data", JOB, BODY)
        self.started = self._task("started", {"action": ["/bin/cat"]}, BODY)
        self.open = self._task("open", {**JOB, "open_ended": True})
        self.closed = self._task("closed", {**JOB, "open_ended": True})
        self.gone = self._task("gone", JOB)
        way = {"kind": "http", "template": JOB}
        self.way = scientist.ok("POST", "/projects/sums/receivers", way)
        self.way_gone = scientist.ok("POST", "/projects/sums/receivers", way)["id"]
        stores.enrolments.set_doors(_open_doors())
        enable(stores)
        scientist.ok("POST", f"/tasks/{self.started}/start")
        [self.chunk] = self.who.claim(1)

    def scientist(self) -> Scientist:
        """One more of the scientist's programs: they do not share a connection."""
        return Scientist(self.app, self.keys[Role.SCIENTIST])

    def _task(self, name: str, job: dict[str, Any], body: bytes | None = None) -> str:
        self.scientist().ok("POST", "/projects/sums/tasks", {**job, "id": name})
        if body is not None:
            self._upload(name, body)
        return name

    def _upload(self, task: str, body: bytes) -> Any:
        path = f"/tasks/{task}/chunks/one"
        return self.scientist().call("PUT", path, data=body, content_type="text/csv")

    def requests(self) -> dict[str, Call]:
        """What is sent, and sent again."""

        def sent(method: str, path: str, json: Any = None, **rest: Any) -> Call:
            return lambda: self.scientist().call(method, path, json, **rest)

        secret = {"Authorization": f"Bearer {self.way['secret']}", "Dockercomp-Key": "first"}
        row = {"rows": [{"name": "Ada"}]}
        return {
            "a project": sent("POST", "/projects", {"name": "sums"}),
            "a task by its id": sent("POST", "/projects/sums/tasks", {**JOB, "id": "with-data"}),
            "an upload": lambda: self._upload(self.task, BODY),
            "start": sent("POST", f"/tasks/{self.started}/start"),
            "pause": sent("POST", f"/tasks/{self.open}/pause"),
            "resume": sent("POST", f"/tasks/{self.task}/resume"),
            "cancel": sent("POST", f"/tasks/{self.closed}/cancel"),
            "close": sent("POST", f"/tasks/{self.closed}/close"),
            "rows by their key": sent("POST", f"/tasks/{self.open}/chunks", ROWS),
            "a run by its id": sent("POST", "/projects/sums/runs", RUN),
            "a blob": sent("PUT", f"/blobs/{SHA}", data=FILE),
            "an event": lambda: self.app.test_client().post(self.way["address"], json=row, headers=secret),
            "a calculation by its id": sent("POST", "/calculations", {"calculation": "1 + 1", "id": NONCE}),
            "an enrolment": lambda: self.app.test_client().post("/enrol", json={"nonce": NONCE}),
            "an answer": lambda: self.who.add(self.who.attempt(self.chunk)),
            "a deletion": sent("DELETE", f"/tasks/{self.gone}"),
            "a receiver's end": sent("DELETE", f"/projects/sums/receivers/{self.way_gone}"),
        }


def _open_doors() -> Any:
    from source_server.domain.enrolment import Doors

    return Doors(open=True, per_hour=100)


def test_whatever_is_sent_again_is_acknowledged_once_a_majority_has_it(replicas: ReplicaSet) -> None:
    database = connect(replicas.uri, "again", application="tests")
    stores = stores_of(database)
    migrate(stores)
    requests = Everything(stores).requests()
    assert [requests[name]().status_code for name in ("close", "start")] == [200, 200]
    with held(replicas):
        at_once(requests)  # by now the primary has done each of them; to a failover all of it would be lost

        again = at_once(requests)
    until(lambda: requests["a project"]().status_code == 200, seconds=60, what="the others hear again")
    afterwards = {name: call().status_code for name, call in requests.items()}

    assert set(again.values()) == {503}, again
    assert {name for name, status in afterwards.items() if status not in (200, 201, 202)} <= GONE, afterwards
    database.client.close()


GONE = {"a deletion", "a receiver's end"}  #: their answer may be that it is not there any more


def test_a_file_that_the_server_made_twice_is_not_taken_for_stored_either(replicas: ReplicaSet) -> None:
    database = connect(replicas.uri, "again", application="tests")
    stores = stores_of(database)
    migrate(stores)
    blobs, account = Blobs(stores), "somebody"
    blobs.put_stream(account, io.BytesIO(FILE))

    from source_server.domain.refusal import Unavailable

    with held(replicas), pytest.raises(Unavailable):
        blobs.put_stream(account, io.BytesIO(FILE))
    database.client.close()
