"""What every tier may use. A real part that is missing: skipped with its reason at home, a failure in CI."""

from __future__ import annotations

import copy
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
from people import Person, Scientist, Volunteer
from product import in_memory

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
    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-", dir=in_memory()))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mongo_uri(mongod_binary: Path) -> Iterator[str]:
    """A real mongod of the session's own, as a one-member replica set with authentication."""
    from source_server.stores.embedded import EmbeddedMongod

    folder = Path(tempfile.mkdtemp(prefix="dockercomp-test-mongo-", dir=in_memory()))
    mongod = EmbeddedMongod(folder / "data", mongod_binary, cache_gb=0.5)
    mongod.start()
    yield mongod.uri
    mongod.stop()
    shutil.rmtree(folder)


LAID_OUT = 6  #: databases that tests take turns with: laying one out makes a hundred files


@pytest.fixture(scope="session")
def laid_out(mongo_uri: str) -> Iterator[Any]:
    """Laid-out databases, for ever in turn: what a test left running has gone when its own comes round again."""
    from source_server.stores.connection import connect
    from source_server.stores.database import migrate, stores_of

    made: list[Any] = []
    client = connect(mongo_uri, "test", application="tests").client

    def turns() -> Iterator[Any]:
        while True:
            for place in range(LAID_OUT):
                if place >= len(made):
                    made.append(client[f"test_{uuid.uuid4().hex[:12]}"])
                    migrate(stores_of(made[place]))
                yield made[place]

    yield turns()
    for database in made:
        client.drop_database(database.name)
    client.close()


@pytest.fixture
def stores(laid_out: Iterator[Any]) -> Any:
    """The stores of a laid-out database without a document."""
    from source_server.stores.database import stores_of

    database = next(laid_out)
    for name in database.list_collection_names():
        if name.startswith("system."):
            database.drop_collection(name)  # what a test had the database write down about itself
        else:
            database[name].delete_many({})
    opened = stores_of(database)
    opened.meta.set_schema()
    return opened


@pytest.fixture
def raw(stores: Any) -> Any:
    """The database below the stores, to look at documents as they are and to set a scene."""
    return stores.clock._database


@pytest.fixture(scope="session")
def routes(laid_out: Iterator[Any]) -> Any:
    """An app to copy: its routes are the same in each, and to make them takes as long as a small test."""
    from source_server.app import create_app
    from source_server.stores.database import stores_of

    return create_app(stores_of(next(laid_out)), beat_s=20.0)


@pytest.fixture
def app(routes: Any, stores: Any) -> Iterator[Any]:
    """The Flask app over the fresh database; what it takes and answers is held to its own document."""
    from documented import Documented

    from source_server.app import EXTENSION, build_services

    made = copy.copy(routes)
    made.extensions = {**routes.extensions, EXTENSION: build_services(stores, beat_s=20.0)}
    made.after_request_funcs = copy.deepcopy(routes.after_request_funcs)
    documented = Documented(made)
    yield made
    # Whoever adds a route or a field says so where it is made: source_server/web/openapi.py, shapes/.
    assert not documented.complaints, "\n".join(documented.complaints)


@pytest.fixture
def new_key(stores: Any) -> Callable[[str], str]:
    """Make an account of that role; its key."""
    from source_server.domain.account import Role
    from source_server.services.accounts.people import People

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
