"""The tasks of an account, page by page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from source_server.domain.account import Account
from source_server.domain.refusal import BadInput
from source_server.domain.task import Task, TaskState
from source_server.services.tasks.tasks import Tasks
from source_server.stores.database import Stores
from source_server.stores.task_lists import Place

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_CURSOR = re.compile(r"(\d{1,14})\.([A-Za-z0-9_-]{1,64})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    """Some tasks, and the cursor of the page behind them; None behind the last."""

    tasks: Sequence[Task]
    next: str | None


class TaskLists:
    """Everybody sees only their own, an admin everything."""

    def __init__(self, stores: Stores, tasks: Tasks) -> None:
        self._stores = stores
        self._tasks = tasks

    def page(
        self,
        account: Account,
        *,
        project: str | None = None,
        state: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> TaskPage:
        """A page, oldest first, of one project or in one state where it is named; raises NotFound or BadInput."""
        if project is not None:
            self._tasks.require_project(account, project)
        projects = self._tasks.own_projects(account) if project is None else [project]
        found = self._stores.task_lists.page(
            projects, state=_state(state), after=None if after is None else _place(after), limit=limit + 1
        )
        shown = found[:limit]
        return TaskPage(tasks=shown, next=_cursor(shown[-1]) if len(found) > limit else None)


def _state(text: str | None) -> TaskState | None:
    try:
        return None if text is None else TaskState(text)
    except ValueError:
        raise BadInput(f"state is one of {', '.join(state.value for state in TaskState)}.") from None


def _cursor(task: Task) -> str:
    return f"{(task.created - _EPOCH) // timedelta(milliseconds=1)}.{task.id}"


def _place(cursor: str) -> Place:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise BadInput("after is the 'next' of the page before.")
    return _EPOCH + timedelta(milliseconds=int(found[1])), found[2]
