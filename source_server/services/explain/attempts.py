"""Every attempt at a task or a chunk: what it said, how it ended, who made it; in pages, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from source_server.domain.account import Account
from source_server.domain.refusal import BadInput, NotFound
from source_server.services.tasks.tasks import Tasks
from source_server.stores.database import Stores
from source_server.stores.gate import Document
from source_server.stores.history import Place

_BEGIN = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Attempts as stored, the pseudonyms of their accounts, and where the next page begins; None: that was all."""

    attempts: Sequence[Mapping[str, Any]]
    pseudonyms: Mapping[str, str]
    next: str | None


class Attempts:
    """Reads the attempts of one's own tasks."""

    def __init__(self, stores: Stores, tasks: Tasks) -> None:
        self._stores = stores
        self._tasks = tasks

    def of_task(self, account: Account, task_id: str, *, after: str | None, limit: int) -> Page:
        """A page of a task's attempts; raises NotFound, and BadInput for an `after` that no page said."""
        task = self._tasks.get(account, task_id)
        return self._page(self._stores.history.of_task(task.id, after=_place(after), limit=limit + 1), limit)

    def of_chunk(self, account: Account, chunk_id: str, *, after: str | None, limit: int) -> Page:
        """A page of a chunk's attempts, of all its runs; raises likewise."""
        try:
            self._tasks.get(account, chunk_id.rpartition(".")[0])
        except NotFound:
            raise NotFound(f"There is no chunk {chunk_id} of yours.") from None
        found = self._stores.history.of_chunk(chunk_id, after=_place(after), limit=limit + 1)
        if not found and not self._stores.chunks.read([chunk_id]):
            raise NotFound(f"There is no chunk {chunk_id} of yours.")
        return self._page(found, limit)

    def _page(self, found: Sequence[Document], limit: int) -> Page:
        shown = found[:limit]
        accounts = {one["account"] for one in shown if one["account"]}
        more = len(found) > limit
        return Page(
            attempts=shown,
            pseudonyms=self._stores.accounts.pseudonyms(accounts),
            next=_name(shown[-1]) if more else None,
        )


def _name(one: Document) -> str:
    """The place of an attempt as text: when it was stored, in milliseconds, and its id."""
    return f"{round((one['stored'] - _BEGIN).total_seconds() * 1000)}-{one['_id']}"


def _place(after: str | None) -> Place | None:
    if after is None:
        return None
    instant, _, attempt = after.partition("-")
    if not (instant.isascii() and instant.isdigit() and len(instant) < 16 and 0 < len(attempt) <= 100):
        raise BadInput("`after` is what the page before answered as `next`.")
    return Place(stored=datetime.fromtimestamp(int(instant) / 1000, tz=timezone.utc), id=attempt)
