"""Goes through what there is a page a step, and from the beginning again: so no step takes longer than a page does.

Where it has come to is kept by its process alone: another begins anew, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from source_server.domain.task import Task
from source_server.stores.unfinished import Page


class Rotation:
    """One walk through tasks that a store finds in the order of their ids."""

    def __init__(self, page: Callable[[str], Page]) -> None:
        """`page`: the tasks behind an id."""
        self._page = page
        self._after = ""

    def next(self) -> tuple[Task, ...]:
        """The tasks whose turn it is."""
        page = self._page(self._after)
        self._after = page.after
        return page.tasks
