"""Somebody waits for a task, and nothing of it moves: why, said once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from dockercomp.api import Server
from dockercomp.cli.why import lines
from dockercomp.failures import DockercompError

AFTER_S = 30.0  #: so long nothing moves before somebody is told why
LOOKED_AT = 50  #: chunks looked at to find one that is not over
OVER = ("done", "quarantined", "cancelled")


class Standstill:
    """Compares what a task is now with what it was."""

    def __init__(self, source: Server, *, after_s: float = AFTER_S) -> None:
        self._source = source
        self._after_s = after_s
        self._last: object = None
        self._since = time.monotonic()
        self._told = False

    def look(self, task: Mapping[str, Any]) -> list[str]:
        """Once, lines that say why nothing of this record of the task has moved for so long; else none.

        A chunk that runs is movement.
        """
        now = (task["state"], task["chunks"], task["paused"], task.get("reaction_runs"))
        if now != self._last or task["chunks"].get("leased"):
            self._last, self._since = now, time.monotonic()
        elif not self._told and time.monotonic() - self._since >= self._after_s:
            self._told = True
            return list(self._explained(task))
        return []

    def _explained(self, task: Mapping[str, Any]) -> Iterator[str]:
        yield f"Nothing of it has moved for {self._after_s:.0f} s."
        try:
            found = self._open_chunk(task)
        except DockercompError:
            found = None  # it may be restarting; the waiting itself says so if that lasts
        if found is not None:
            yield from lines(found)
        yield how_to_end(task["id"])

    def _open_chunk(self, task: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Why the first chunk that is not over does not run: of the task, or of the reaction that runs."""
        runs = [one for one in task.get("reaction_runs", ()) if one["state"] != "complete"]
        about, total = (runs[-1]["task"], 1) if runs else (task["id"], task["chunks"]["total"])
        for number in range(min(total, LOOKED_AT)):
            found = self._source.why(f"{about}.{number}")
            if found["state"] not in OVER:
                return found
        return None


def how_to_end(task: str) -> str:
    """How to stop waiting, and how to stop the task."""
    return (
        f"Ctrl-C ends the waiting and leaves the task as it is; end the task with: dockercomp cancel {task}"
    )
