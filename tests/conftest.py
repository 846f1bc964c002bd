"""What every tier may use. A real part that is missing: skipped with its reason at home, a failure in CI."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from parts import require

# How long an example takes is the machine's affair: what these tests prove does not depend on it.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

CONTRACT = Path(__file__).parent / "contract" / "v1"


@pytest.fixture(scope="session")
def mongod_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real mongod that runs on this machine."""
    from source_server.stores.mongod_binary import MongodUnavailable, find_mongod, read_version

    explicit = os.environ.get("DOCKERCOMP_MONGOD")
    try:
        binary = find_mongod(
            Path(explicit) if explicit else None,
            search_path=os.environ.get("PATH"),
            copy_to=tmp_path_factory.mktemp("mongod"),
        )
        read_version(binary)
    except MongodUnavailable as error:
        require(str(error))
        raise
    return binary


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary DOCKERCOMP_HOME, removed at once: a mongod's journal takes 300 MB."""
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mongo_uri(mongod_binary: Path) -> Iterator[str]:
    """A real mongod of the session's own, as a one-member replica set with authentication."""
    from source_server.stores.embedded import EmbeddedMongod

    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-mongo-"))
    mongod = EmbeddedMongod(folder / "data", mongod_binary, cache_gb=0.5)
    mongod.start()
    yield mongod.uri
    mongod.stop()
    shutil.rmtree(folder)


@pytest.fixture
def stores(mongo_uri: str) -> Iterator[Any]:
    """The stores of a fresh, laid-out database."""
    from source_server.stores.connection import connect
    from source_server.stores.database import migrate, stores_of

    database = connect(mongo_uri, f"test_{uuid.uuid4().hex[:12]}", application="tests")
    opened = stores_of(database)
    migrate(opened)
    yield opened
    database.client.drop_database(database.name)
    database.client.close()


@pytest.fixture
def raw(stores: Any) -> Any:
    """The database below the stores, to look at documents as they are and to set a scene."""
    return stores.clock._database


@pytest.fixture
def app(stores: Any) -> Any:
    """The Flask app over the fresh database."""
    from source_server.app import create_app

    return create_app(stores, beat_s=20.0)


class Person:
    """Somebody with an account, calling the app."""

    def __init__(self, app: Any, key: str) -> None:
        self.key = key
        self._http = app.test_client()

    def call(self, method: str, path: str, json: Any = None, **rest: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", **rest.pop("headers", {})}
        if json is not None:
            rest["json"] = json
        return self._http.open(path, method=method, headers=headers, **rest)

    def ok(self, method: str, path: str, json: Any = None, **rest: Any) -> Any:
        """The JSON of a call that must succeed."""
        answer = self.call(method, path, json, **rest)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.get_json() if answer.status_code != 204 else None


class Scientist(Person):
    """Makes projects and tasks."""

    def task(self, rows: int = 10, *, project: str = "sums", body: bytes | None = None, **job: Any) -> str:
        """A waiting task with data: rows of a and b."""
        self.ok("POST", "/projects", {"name": project})
        job = {"action": ["/bin/cat"], **job}
        task = self.ok("POST", f"/projects/{project}/tasks", job)["id"]
        if body is None:
            body = ("a,b\n" + "".join(f"{n},{n + 1}\n" for n in range(rows))).encode()
        self.ok("PUT", f"/tasks/{task}/chunks/one", data=body, content_type="text/csv")
        return str(task)

    def running(self, rows: int = 10, **rest: Any) -> str:
        """A task that runs, its chunks dealt to nobody."""
        task = self.task(rows, **rest)
        self.ok("POST", f"/tasks/{task}/start")
        return task


class Volunteer(Person):
    """One client container that speaks the protocol, step by step."""

    def __init__(self, app: Any, account_key: str, *, host: str | None = None, **extra: Any) -> None:
        super().__init__(app, account_key)
        self.account_key = account_key
        self.id = str(uuid.uuid4())
        self.host = host or str(uuid.uuid4())
        self.extra = extra
        self.beats = 0
        self.held: dict[str, int] = {}
        self.register()

    def register(self) -> None:
        self.key = self.account_key
        body = {"protocol": 1, "id": self.id, "host": {"id": self.host}, **self.extra}
        made = self.ok("POST", "/containers", body)
        self.key, self.life, self.beats = made["key"], made["life"], 0

    def claim(self, want: int = 1, token: str | None = None) -> list[dict[str, Any]]:
        token = token or str(uuid.uuid4())
        answer = self.call("POST", "/next", {"token": token, "want": want})
        chunks = answer.get_json()["chunks"] if answer.status_code == 200 else []
        self.held[token] = len(chunks)
        return [{**chunk, "token": token} for chunk in chunks]

    def attempt(self, chunk: dict[str, Any], stdout: str = "42\n", **other: Any) -> dict[str, Any]:
        moment = "2026-11-22T06:00:00.000Z"
        return {
            "chunk": chunk["id"],
            "run": chunk["run"],
            "token": chunk["token"],
            "ticket": chunk["ticket"],
            "outcome": "ok",
            "exit_code": 0,
            "signal": None,
            "stdout": stdout,
            "stderr_tail": "",
            "started": moment,
            "ended": moment,
            "cpu_s": 0.1,
            "runtime": "process",
            "image": None,
            **other,
        }

    def failure(self, chunk: dict[str, Any], **other: Any) -> dict[str, Any]:
        failed = {"outcome": "failed", "exit_code": 1, "stderr_tail": "boom 17\n"}
        return self.attempt(chunk, "", **{**failed, **other})

    def add(self, *attempts: dict[str, Any]) -> Any:
        return self.call("POST", "/add", {"results": list(attempts)})

    def beat(self, started: list[str] | None = None, held: dict[str, int] | None = None) -> Any:
        self.beats += 1
        body = {"life": self.life, "beat": self.beats, "held": self.held if held is None else held}
        return self.call("POST", "/heartbeat", {**body, "started": started or []})


@pytest.fixture
def new_key(stores: Any) -> Callable[[str], str]:
    """Make an account of that role; its key."""
    from source_server.domain.account import Role
    from source_server.services.people import People

    def make(role: str) -> str:
        return People(stores).add(f"{role}-{uuid.uuid4().hex[:8]}", Role(role))

    return make


@pytest.fixture
def scientist(app: Any, new_key: Callable[[str], str]) -> Scientist:
    return Scientist(app, new_key("scientist"))


@pytest.fixture
def admin(app: Any, new_key: Callable[[str], str]) -> Person:
    return Person(app, new_key("admin"))


@pytest.fixture
def volunteer(app: Any, stores: Any, new_key: Callable[[str], str]) -> Callable[..., Volunteer]:
    """Makes volunteers, all of one account unless told otherwise, on hosts that may hold hundreds of chunks.

    `newcomer=True`: on a host that nothing is known of.
    """
    account_key = new_key("volunteer")

    def make(*, newcomer: bool = False, **extra: Any) -> Volunteer:
        made = Volunteer(app, extra.pop("account_key", account_key), **extra)
        if not newcomer:
            account = stores.containers.find(made.id).account
            stores.hosts.succeeded(account, made.host, 500, 1)
        return made

    return make
