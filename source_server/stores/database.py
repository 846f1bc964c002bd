"""All stores of one database, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from source_server.stores.accounts import Accounts
from source_server.stores.appends import Appends
from source_server.stores.attempts import Results
from source_server.stores.blobs import Blobs
from source_server.stores.calculations import Calculations
from source_server.stores.chunks import Chunks
from source_server.stores.connection import PrimaryClock, connect
from source_server.stores.containers import Containers
from source_server.stores.deals import Deals
from source_server.stores.deliveries import Deliveries
from source_server.stores.dependencies import Dependencies
from source_server.stores.enrolments import Enrolments
from source_server.stores.error_groups import ErrorGroups
from source_server.stores.errors import Errors
from source_server.stores.events import Events
from source_server.stores.history import History
from source_server.stores.hosts import Hosts
from source_server.stores.images import Images
from source_server.stores.limited import Limited
from source_server.stores.meta import SCHEMA, Meta, SchemaUnknown
from source_server.stores.outbox import Outbox, WebhookKeys
from source_server.stores.paces import Paces
from source_server.stores.projects import Projects
from source_server.stores.reactions import Reactions
from source_server.stores.receivers import Receivers
from source_server.stores.references import References
from source_server.stores.removals import Removals
from source_server.stores.rounds import Rounds
from source_server.stores.set_aside import SetAside
from source_server.stores.sweeps import Sweeps
from source_server.stores.tallies import Tallies
from source_server.stores.task_lists import TaskLists
from source_server.stores.tasks import Tasks
from source_server.stores.unfinished import Unfinished
from source_server.stores.windows import Windows


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The collections and the clock that services work with."""

    accounts: Accounts
    containers: Containers
    hosts: Hosts
    projects: Projects
    tasks: Tasks
    unfinished: Unfinished
    task_lists: TaskLists
    rounds: Rounds
    appends: Appends
    reactions: Reactions
    dependencies: Dependencies
    removals: Removals
    limited: Limited
    tallies: Tallies
    outbox: Outbox
    webhook_keys: WebhookKeys
    chunks: Chunks
    set_aside: SetAside
    windows: Windows
    paces: Paces
    results: Results
    errors: Errors
    history: History
    error_groups: ErrorGroups
    deals: Deals
    enrolments: Enrolments
    images: Images
    blobs: Blobs
    deliveries: Deliveries
    references: References
    sweeps: Sweeps
    receivers: Receivers
    events: Events
    calculations: Calculations
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
        unfinished=Unfinished(database),
        task_lists=TaskLists(database),
        rounds=Rounds(database),
        appends=Appends(database),
        reactions=Reactions(database),
        dependencies=Dependencies(database),
        removals=Removals(database),
        limited=Limited(database),
        tallies=Tallies(database),
        outbox=Outbox(database),
        webhook_keys=WebhookKeys(database),
        chunks=Chunks(database),
        set_aside=SetAside(database),
        windows=Windows(database),
        paces=Paces(database),
        results=Results(database),
        errors=Errors(database),
        history=History(database),
        error_groups=ErrorGroups(database),
        deals=Deals(database),
        enrolments=Enrolments(database),
        images=Images(database),
        blobs=Blobs(database),
        deliveries=Deliveries(database),
        references=References(database),
        sweeps=Sweeps(database),
        receivers=Receivers(database),
        events=Events(database),
        calculations=Calculations(database),
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
        stores.unfinished,
        stores.appends,
        stores.task_lists,
        stores.reactions,
        stores.dependencies,
        stores.removals,
        stores.chunks,
        stores.results,
        stores.errors,
        stores.history,
        stores.error_groups,
        stores.deals,
        stores.calculations,
        stores.blobs,
        stores.deliveries,
        stores.receivers,
        stores.events,
        stores.limited,
        stores.tallies,
        stores.outbox,
    ):
        store.ensure_indexes()
    stores.meta.set_schema()
    return f"schema {SCHEMA}, unchanged" if before == SCHEMA else f"schema {before or 'none'} -> {SCHEMA}"
