"""Blobs that nothing names any more are removed: a sweep marks all that is named, then takes away what it did not mark.

Nobody counts references. What came to be named while the sweep went on is safe, for whoever names a blob touches it
first: an owner's claim to a blob ends only if the sweep did not mark it and it was not touched since the grace period
before the sweep began. Any number of processes may do this; every step may be repeated, and may be the last one that
its process lives to take.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from source_server.domain.blob import BlobLimits
from source_server.services.each import together
from source_server.services.files.drop_uploads import DropUploads
from source_server.stores.database import Stores
from source_server.stores.references import Page
from source_server.stores.sweeps import Sweep

PAGE = 200  #: documents that are looked at in one go
PAGES = 20  #: in one step
SILENT = timedelta(seconds=60)  #: after that another process goes on with the sweep
OFTEN, SELDOM = timedelta(seconds=1), timedelta(hours=6)  #: bounds of the pause between two sweeps


class SweepBlobs:
    """Takes some steps of the sweep at each call."""

    def __init__(self, stores: Stores, limits: BlobLimits | None = None) -> None:
        self._stores, self._grace = stores, (limits or BlobLimits()).grace
        self._pause = max(OFTEN, min(self._grace / 8, SELDOM))
        references = stores.references
        marking: dict[str, Callable[[Any, int], Page]] = {
            "tasks": references.of_tasks,
            "chunks": references.of_chunks,
            "results": references.of_results,
            "events": references.of_events,
            "receivers": references.of_receivers,
        }
        self._marking = marking
        self._drop_uploads = DropUploads(stores)
        self._phases = (*marking, "blobs", "files")

    def __call__(self, now: datetime) -> int:
        """Go on with the sweep, or begin one when it is time; how many blobs it removed."""
        self._drop_uploads(now)
        sweep = self._current(now)
        hand = uuid.uuid4().hex
        taken = (
            None if sweep is None else self._stores.sweeps.take(sweep, hand, now, silent_since=now - SILENT)
        )
        if taken is None:
            return 0
        removed = 0
        for _ in range(PAGES):
            count, taken = self._page(taken)
            removed += count
            if not self._stores.sweeps.advance(taken):
                return removed
            if taken.phase is None:
                break
        self._stores.sweeps.release(taken)
        return removed

    def _current(self, now: datetime) -> Sweep | None:
        last = self._stores.sweeps.last()
        if last is not None and last.phase is not None:
            return last
        if last is not None and now - last.begun < self._pause:
            return None
        number = 1 if last is None else last.number + 1
        new = Sweep(number=number, begun=now, phase=self._phases[0], touched=now)
        return new if self._stores.sweeps.begin(last, new) else None

    def _page(self, sweep: Sweep) -> tuple[int, Sweep]:
        """(how many blobs were removed, how far the sweep is then)."""
        assert sweep.phase is not None
        removed = 0
        if sweep.phase == "blobs":
            removed, after = self._remove(sweep)
        elif sweep.phase == "files":
            after = self._clear(sweep)
        else:
            # Nothing that fails here is passed over: what it names would count as named by nobody.
            named, after = self._marking[sweep.phase](sweep.after, PAGE)
            for account, hashes in named.items():
                self._stores.blobs.mark(account, hashes, sweep.number)
        phase: str | None = sweep.phase
        if after is None:
            further = self._phases.index(sweep.phase) + 1
            phase = self._phases[further] if further < len(self._phases) else None
        return removed, replace(sweep, phase=phase, after=after, touched=self._stores.clock.now())

    def _remove(self, sweep: Sweep) -> tuple[int, str | None]:
        blobs = self._stores.blobs
        page = blobs.page(sweep.after or "", limit=PAGE)
        blobs.disown(page, sweep.number, untouched_since=sweep.begun - self._grace)
        return together("blob cannot be removed", blobs.bury, page), page[-1] if len(page) == PAGE else None

    def _clear(self, sweep: Sweep) -> Any:
        """Uploads that nobody went on with, and files that crashes left."""
        before = sweep.begun - self._grace
        if sweep.after is None:
            self._stores.blobs.drop_quiet(before)
            self._stores.deliveries.forget(before)
        page = self._stores.blobs.files.untouched(before, after=sweep.after, limit=PAGE)
        together("file of no blob cannot be removed", self._stores.blobs.forget_strays, page)
        return page[-1][0] if len(page) == PAGE else None
