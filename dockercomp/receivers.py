"""Calls about receivers: the ways by which work comes into a project, and what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dockercomp.line import Line, part

PAGE = 200


class ReceiverCalls(Line):
    """What can be asked of receivers."""

    def add_receiver(self, project: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Open a way into a project; its record with `address` and `secret`, which is shown this once."""
        body = {"kind": kind, **settings}
        made: dict[str, Any] = self._call("POST", f"/projects/{part(project)}/receivers", json=body)
        return made

    def receivers(self, project: str) -> list[dict[str, Any]]:
        """A project's receivers, oldest first."""
        return list(self._call("GET", f"/projects/{part(project)}/receivers")["receivers"])

    def remove_receiver(self, project: str, receiver: str) -> None:
        """Close a way in; what waits there is refused, tasks that it made stay."""
        self._request("DELETE", f"/projects/{part(project)}/receivers/{part(receiver)}").close()

    def events(self, project: str, *, receiver: str | None = None) -> Iterator[dict[str, Any]]:
        """What came to a project's receivers, or to one of them, newest first."""
        before: str | None = None
        while True:
            asked = {"receiver": receiver, "before": before, "limit": str(PAGE)}
            params = {name: value for name, value in asked.items() if value is not None}
            page = self._call("GET", f"/projects/{part(project)}/events", params=params)["events"]
            yield from page
            if not page:
                return
            before = page[-1]["id"]

    def handle_again(self, project: str, event: str) -> dict[str, Any]:
        """Have an event that was refused handled anew."""
        path = f"/projects/{part(project)}/events/{part(event)}/again"
        found: dict[str, Any] = self._call("POST", path)
        return found
