"""All stores of one database, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from source_server.stores.accounts import Accounts
from source_server.stores.attempts import Results
from source_server.stores.chunks import Chunks
from source_server.stores.connection import PrimaryClock, connect
from source_server.stores.containers import Containers
from source_server.stores.deals import Deals
from source_server.stores.enrolments import Enrolments
from source_server.stores.error_groups import ErrorGroups
from source_server.stores.errors import Errors
from source_server.stores.hosts import Hosts
from source_server.stores.images import Images
from source_server.stores.meta import SCHEMA, Meta, SchemaUnknown
from source_server.stores.paces import Paces
from source_server.stores.rounds import Rounds
from source_server.stores.set_aside import SetAside
from source_server.stores.tasks import Projects, Tasks
from source_server.stores.windows import Windows


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The collections and the clock that services work with."""

    accounts: Accounts
    containers: Containers
    hosts: Hosts
    projects: Projects
    tasks: Tasks
    rounds: Rounds
    chunks: Chunks
    set_aside: SetAside
    windows: Windows
    paces: Paces
    results: Results
    errors: Errors
    error_groups: ErrorGroups
    deals: Deals
    enrolments: Enrolments
    images: Images
    meta: Meta
    clock: PrimaryClock


def open_stores(uri: str, database: str, *, application: str) -> Stores:
    """The stores at `uri`, connecting lazily; made once in each process, after any fork."""
    return stores_of(connect(uri, database, application=application))


def stores_of(database: Database[dict[str, Any]]) -> Stores:
    """The stores of a database that is connected already."""
    return Stores(
        accounts=Accounts(database),
        containers=Containers(database),
        hosts=Hosts(database),
        projects=Projects(database),
        tasks=Tasks(database),
        rounds=Rounds(database),
        chunks=Chunks(database),
        set_aside=SetAside(database),
        windows=Windows(database),
        paces=Paces(database),
        results=Results(database),
        errors=Errors(database),
        error_groups=ErrorGroups(database),
        deals=Deals(database),
        enrolments=Enrolments(database),
        images=Images(database),
        meta=Meta(database),
        clock=PrimaryClock(database),
    )


def migrate(stores: Stores) -> str:
    """Lay out an empty database, or bring an older one to this release; what was done, in words.

    Only ever adds. Raises SchemaUnknown for a database of a newer release, and touches nothing then.
    """
    stores.meta.require_replica_set()
    before = stores.meta.schema()
    if before is not None and before > SCHEMA:
        raise SchemaUnknown(
            f"The database carries schema {before}, this release knows {SCHEMA}: install a newer release."
        )
    for store in (
        stores.accounts,
        stores.containers,
        stores.hosts,
        stores.tasks,
        stores.chunks,
        stores.results,
        stores.errors,
        stores.error_groups,
        stores.deals,
    ):
        store.ensure_indexes()
    stores.meta.set_schema()
    return f"schema {SCHEMA}, unchanged" if before == SCHEMA else f"schema {before or 'none'} -> {SCHEMA}"
