"""What a reaction is told: a summary of the task as JSON, and the table of its results as a file. Both are bounded."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from source_server.domain.chunk import ChunkFile
from source_server.domain.reactions import RESULTS, Reaction
from source_server.domain.refusal import Refusal, Unavailable
from source_server.domain.task import Task
from source_server.domain.timing import instant
from source_server.services.files.blobs import Blobs
from source_server.services.results import csv_table
from source_server.services.results.export import Export
from source_server.stores.database import Stores
from source_server.stores.errors import Group

log = logging.getLogger(__name__)

MOST_GROUPS = 20  #: groups of alike errors that are told of
SHOWN = 300  #: letters of a signature

Json = dict[str, Any]


class Summary:
    """Reads what is known of a task at this moment."""

    def __init__(self, stores: Stores, blobs: Blobs) -> None:
        self._stores = stores
        self._export = Export(stores)
        self._blobs = blobs

    def __call__(
        self, task: Task, reaction: Reaction, before: Mapping[str, Any] | None
    ) -> tuple[str, tuple[ChunkFile, ...]]:
        """JSON text for stdin, and the files. `before`: what became of the reaction before this one."""
        results, why = self._table(task)
        told = {
            "task": task.id,
            "name": task.name,
            "project": task.project,
            "reaction": reaction.value,
            "outcome": None if task.outcome is None else task.outcome.value,
            "why": task.cancelled_why or task.ended_why,
            "created": instant(task.created),
            "started": instant(task.started),
            "ended": instant(task.ended),
            "rows": task.upload.rows if task.upload else 0,
            "chunks": self._counts(task),
            "max_failed": task.max_failed,
            "errors": self._errors(task),
            "results": None
            if results is None
            else {"file": results.name, "sha256": results.sha256, "bytes": results.bytes},
            "results_why": why,
            "before": before,
        }
        return json.dumps(told, ensure_ascii=False), () if results is None else (results,)

    def _counts(self, task: Task) -> Json:
        visible = task.upload is not None and task.upload.complete
        counted = self._stores.chunks.counts(task.id) if visible else {}
        return {"total": sum(counted.values()), **counted}

    def _errors(self, task: Task) -> Json:
        groups = sorted(self._stores.errors.groups([task.id]), key=lambda one: (-one.count, one.signature))
        return {"groups": len(groups), "most_frequent": [_group(one) for one in groups[:MOST_GROUPS]]}

    def _table(self, task: Task) -> tuple[ChunkFile | None, str | None]:
        """The table, kept as a file; or why there is none: a reaction runs all the same."""
        lines = csv_table.pieces(task.fields, self._export.chunks([task], None), None)
        try:
            sha256, size = self._blobs.keep(task.owner, lines)
        except Unavailable:
            raise
        except Refusal as refusal:
            log.warning("no table for a reaction", extra={"task": task.id, "reason": str(refusal)})
            return None, str(refusal)
        return ChunkFile(name=RESULTS, sha256=sha256, bytes=size), None


def _group(one: Group) -> Json:
    return {
        "signature": one.signature[:SHOWN],
        "count": one.count,
        "chunks": one.chunks,
        "hosts": one.hosts,
        "first": instant(one.first),
        "last": instant(one.last),
    }
