"""Who is measured: clients that call the services in this process, and clients that speak HTTP to gunicorn."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections import deque
from typing import Any, Protocol
from urllib.parse import urlsplit

from bench import laying
from source_server.domain.account import Role
from source_server.domain.container import Container
from source_server.domain.task import Task
from source_server.services.accounts.people import People
from source_server.stores.database import Stores
from source_server.web import wire
from source_server.web.bodies import client as bodies
from source_server.web.http.services import Services

MOMENT = "2026-01-01T00:00:00.000Z"
BEAT_S = 20.0
TRIES = 20  #: times that a claim is told "again, at once" before it counts as one without chunks


class Client(Protocol):
    """One client container: what it claims, it delivers later, claim by claim."""

    def prepare(self, k: int, claims: int) -> None:
        """Get ready for so many claims of k chunks; this is not timed."""

    def claim(self, k: int) -> int:
        """Claim k chunks; how many were won."""

    def deliver(self) -> int:
        """Deliver the results of the oldest claim in one request; how many were stored. 0: there is none."""


class Side(Protocol):
    """A way to the same work."""

    name: str

    def clients(self, count: int) -> list[Client]:
        """So many clients, the same ones each time as far as they go."""

    def have_ready(self, count: int) -> None:
        """Lay chunks until so many are ready."""


class Pool:
    """A task of which there are always enough chunks."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.task: Task = laying.task_of(stores)
        # The chunks before the task: housekeeping of the running server would complete a task that has none.
        self._laid = laying.add(stores, laying.ready_chunks(self.task, 0, 1))
        stores.tasks.add(self.task)

    def have_ready(self, count: int) -> None:
        """Lay chunks until so many are ready."""
        missing = count - self.stores.chunks.unassigned(self.task.id)
        if missing > 0:
            self._laid += laying.add(self.stores, laying.ready_chunks(self.task, self._laid, missing))


class ThroughServices:
    """The service layer in this process: no HTTP, no JSON; threads, so one core for all of Python."""

    name = "services"

    def __init__(self, pool: Pool, services: Services) -> None:
        self.pool = pool
        self._services = services
        self._containers: list[Container] = []

    def clients(self, count: int) -> list[Client]:
        """So many clients, each a container on a host of its own."""
        missing = count - len(self._containers)
        if missing > 0:
            self._containers += laying.crowd(self.pool.stores, missing)
            self._services.live.forget()
        return [ServiceClient(self._services, one) for one in self._containers[:count]]

    def have_ready(self, count: int) -> None:
        """See Pool."""
        self.pool.have_ready(count)


class ServiceClient:
    """Calls Claim and Accept."""

    def __init__(self, services: Services, container: Container) -> None:
        self._services = services
        self._container = container
        self._undelivered: deque[list[Any]] = deque()

    def prepare(self, k: int, claims: int) -> None:
        """Nothing to prepare."""

    def claim(self, k: int) -> int:
        """One call of Claim, repeated where it says so."""
        for _ in range(TRIES):
            token = str(uuid.uuid4())
            claimed = self._services.claim(self._container, token, k)
            if claimed.granted or not claimed.again:
                break
        said = [attempt(one.chunk.id, one.chunk.run, token, one.ticket) for one in claimed.granted]
        self._undelivered.append([bodies.attempt(wire.read(bodies.AttemptBody, body)) for body in said])
        return len(said)

    def deliver(self) -> int:
        """One call of Accept."""
        if not self._undelivered or not (attempts := self._undelivered.popleft()):
            return 0
        delivered = self._services.accept(self._container, attempts)
        return sum(one.refusal is None for one in delivered)


class ThroughHttp:
    """Real requests to gunicorn's processes; this process makes them, on the same cores."""

    name = "http"

    def __init__(self, pool: Pool, url: str) -> None:
        self.pool = pool
        self._url = url
        self._key = People(pool.stores).add(f"bench-{uuid.uuid4().hex[:8]}", Role.VOLUNTEER)
        self._clients: list[HttpClient] = []

    def clients(self, count: int) -> list[Client]:
        """So many clients, registered, each on a host of its own."""
        while len(self._clients) < count:
            client = HttpClient(self._url, self._key)
            container = self.pool.stores.containers.find(client.id)
            assert container is not None
            # As in laying.crowd: this host has proved itself.
            self.pool.stores.hosts.succeeded(container.account, container.host.id, 10_000, 1)
            self._clients.append(client)
        return list(self._clients[:count])

    def have_ready(self, count: int) -> None:
        """See Pool."""
        self.pool.have_ready(count)


class HttpClient:
    """Registers, then speaks `/next` and `/add` over one connection."""

    def __init__(self, url: str, account_key: str) -> None:
        place = urlsplit(url)
        self._link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
        self._key = account_key
        self._undelivered: deque[list[dict[str, Any]]] = deque()
        self.id = str(uuid.uuid4())
        body = {"protocol": 1, "id": self.id, "host": {"id": str(uuid.uuid4())}}
        self._key = self._post("/containers", body)["key"]

    def prepare(self, k: int, claims: int) -> None:
        """Nothing to prepare."""

    def claim(self, k: int) -> int:
        """POST /next, repeated where it says so."""
        for _ in range(TRIES):
            token = str(uuid.uuid4())
            answer = self._post("/next", {"token": token, "want": k})
            if answer.get("chunks") or answer["retry_after"] != "0":
                break
        chunks = answer.get("chunks", [])
        self._undelivered.append([attempt(one["id"], one["run"], token, one["ticket"]) for one in chunks])
        return len(chunks)

    def deliver(self) -> int:
        """POST /add."""
        if not self._undelivered or not (results := self._undelivered.popleft()):
            return 0
        answer = self._post("/add", {"results": results})
        return sum("stored" in one for one in answer["results"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        for patience in (1, 0):
            try:
                return self._ask(path, json.dumps(body))
            except (http.client.HTTPException, ConnectionError):
                # gunicorn ends connections that are silent for two seconds.
                self._link.close()
                if not patience:
                    raise
        raise AssertionError

    def _ask(self, path: str, body: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        self._link.request("POST", path, body, headers)
        answer = self._link.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{path}: {answer.status} {text[:300]!r}"
        told: dict[str, Any] = json.loads(text) if text else {}
        return {**told, "retry_after": answer.getheader("Retry-After", "")}


def attempt(chunk: str, run: int, token: str, ticket: str) -> dict[str, Any]:
    """A good answer to a chunk, as a client sends it."""
    return {
        "chunk": chunk,
        "run": run,
        "token": token,
        "ticket": ticket,
        "outcome": "ok",
        "exit_code": 0,
        "stdout": "42\n",
        "started": MOMENT,
        "ended": MOMENT,
        "cpu_s": 0.1,
    }


class KeptAlive:
    """Beats for all live containers, straight into their records, so that none is purged for being measured."""

    def __init__(self, stores: Stores, every_s: float = 10.0) -> None:
        self._stores = stores
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> KeptAlive:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            now = self._stores.clock.now()
            for one in self._stores.containers.live():
                self._stores.containers.beat(
                    one.id, one.life, beat=one.beat + 1, held=one.held, paused=False, now=now
                )
