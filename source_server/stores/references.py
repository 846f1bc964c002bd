"""Which blobs are named, and by whom: tasks name some, and so do chunks, answers and events that wait."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pymongo.database import Database

from source_server.stores.gate import Document, Gate

Named = dict[str, set[str]]  #: account -> hashes
Page = tuple[Named, Any]  #: and where the next page begins; None: this was the last one

_JOBS = ("job", "success", "failure", "after", "validator")
_HASH = re.compile(r"[0-9a-f]{64}")


class References:
    """Reads them page by page, in an order that new documents do not disturb."""

    def __init__(self, database: Database[Document]) -> None:
        self._tasks, self._projects = Gate(database, "tasks"), Gate(database, "projects")
        self._chunks, self._results = Gate(database, "chunks"), Gate(database, "results")
        self._events, self._receivers = Gate(database, "events"), Gate(database, "receivers")

    def of_tasks(self, after: Any, limit: int) -> Page:
        """By jobs, their files of the whole task."""
        query: Document = {} if after is None else {"_id": {"$gt": after}}
        fields = {"owner": 1, **{f"{job}.inputs": 1 for job in _JOBS}}
        found = self._tasks.find(query, fields, sort=[("_id", 1)], limit=limit)
        named: Named = {}
        for task in found:
            for pair in (pair for job in _JOBS for pair in (task.get(job) or {}).get("inputs", ())):
                if _HASH.fullmatch(pair[1]):
                    named.setdefault(task["owner"], set()).add(pair[1])
        return named, found[-1]["_id"] if len(found) == limit else None

    def of_chunks(self, after: Any, limit: int) -> Page:
        """By chunks, whatever became of the upload that brought them."""
        query = {"has_files": True, **_behind(("task", "n"), after)}
        fields = {"task": 1, "n": 1, "files.sha256": 1, "input_file.sha256": 1}
        found = self._chunks.find(query, fields, sort=[("task", 1), ("n", 1)], limit=limit)
        lists = [(one["task"], [*one.get("files", ()), one.get("input_file") or {}]) for one in found]
        further = [found[-1]["task"], found[-1]["n"]] if len(found) == limit else None
        return self._of_owners(lists), further

    def of_results(self, after: Any, limit: int) -> Page:
        """By answers, accepted or not: they are kept as well."""
        query = {"files.sha256": {"$exists": True}, **_behind(("chunk", "_id"), after)}
        fields = {"task": 1, "chunk": 1, "files.sha256": 1}
        found = self._results.find(query, fields, sort=[("chunk", 1), ("_id", 1)], limit=limit)
        further = [found[-1]["chunk"], found[-1]["_id"]] if len(found) == limit else None
        return self._of_owners([(one["task"], one["files"]) for one in found]), further

    def of_events(self, after: Any, limit: int) -> Page:
        """By what receivers have taken in, and is no task yet."""
        query: Document = {"blob": {"$type": "string"}, **({} if after is None else {"_id": {"$gt": after}})}
        found = self._events.find(query, {"blob": 1, "project": 1}, sort=[("_id", 1)], limit=limit)
        named = self._of_projects([(event["project"], {event["blob"]}) for event in found])
        return named, found[-1]["_id"] if len(found) == limit else None

    def of_receivers(self, after: Any, limit: int) -> Page:
        """By receivers: the files that their templates, or rows of theirs, name."""
        query: Document = {} if after is None else {"_id": {"$gt": after}}
        found = self._receivers.find(query, {"settings": 1, "project": 1}, sort=[("_id", 1)], limit=limit)
        # The settings are JSON text; what looks like a hash in it is taken for one.
        named = self._of_projects([(one["project"], set(_HASH.findall(one["settings"]))) for one in found])
        return named, found[-1]["_id"] if len(found) == limit else None

    def _of_projects(self, lists: Sequence[tuple[str, set[str]]]) -> Named:
        """What projects name, under their owners."""
        projects = list({project for project, hashes in lists if hashes})
        known = self._projects.find({"_id": {"$in": projects}}, {"owner": 1})
        owners = {one["_id"]: one["owner"] for one in known}
        named: Named = {}
        for project, hashes in lists:
            if project in owners:
                named.setdefault(owners[project], set()).update(hashes)
        return named

    def _of_owners(self, lists: Sequence[tuple[str, Iterable[Document]]]) -> Named:
        tasks = list({task for task, _ in lists})
        owners = {one["_id"]: one["owner"] for one in self._tasks.find({"_id": {"$in": tasks}}, {"owner": 1})}
        named: Named = {}
        for task, files in lists:
            if task in owners:
                hashes = {file["sha256"] for file in files if "sha256" in file}
                named.setdefault(owners[task], set()).update(hashes)
        return named


def _behind(names: tuple[str, str], after: Any) -> Document:
    """Documents behind this one, in the order of these two fields."""
    if after is None:
        return {}
    first, second = names
    return {"$or": [{first: after[0], second: {"$gt": after[1]}}, {first: {"$gt": after[0]}}]}
