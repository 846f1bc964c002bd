"""Calls about tasks: made, listed, looked into, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockercomp.line import Line, part
from dockercomp.wishes import NewTask

PAGE = 200


class TaskCalls(Line):
    """What can be asked of tasks."""

    def make_task(self, project: str, wanted: NewTask) -> dict[str, Any]:
        """Make a waiting task; its record. With an id that you chose, the same task again changes nothing."""
        made: dict[str, Any] = self._call("POST", f"/projects/{part(project)}/tasks", json=wanted.body())
        return made

    def tasks(self, project: str | None = None, *, state: str | None = None) -> list[dict[str, Any]]:
        """Your tasks, oldest first; of one project, or in one state (waiting, running, complete)."""
        return list(self.each_task(project, state=state))

    def each_task(self, project: str | None = None, *, state: str | None = None) -> Iterator[dict[str, Any]]:
        """The same one by one: page after page is read."""
        after: str | None = None
        while True:
            asked = {"project": project, "state": state, "after": after, "limit": str(PAGE)}
            params = {name: value for name, value in asked.items() if value is not None}
            page = self._call("GET", "/tasks", params=params)
            yield from page["tasks"]
            after = page.get("next")
            if after is None:
                return

    def attempts(self, task: str | None = None, *, chunk: str | None = None) -> Iterator[dict[str, Any]]:
        """Every attempt at the chunks of a task, or at one chunk, newest first."""
        of = f"/tasks/{part(task)}" if task is not None else f"/chunks/{part(chunk or '')}"
        after: str | None = None
        while True:
            params = {} if after is None else {"after": after}
            page = self._call("GET", f"{of}/attempts", params=params)
            yield from page["attempts"]
            after = page.get("next")
            if after is None:
                return

    def delete_task(self, task: str) -> None:
        """Forget a complete task with all that belongs to it."""
        self._call("DELETE", f"/tasks/{part(task)}")
