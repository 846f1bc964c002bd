"""What happened to every document of a test's database, write by write, in the order in which the database made them.

A change stream tells all of it: a race that went wrong for a moment only is seen as well as one that left a trace.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

Document = dict[str, Any]
END = "history_end"  #: collection of the document that marks where to stop reading


class History:
    """Opened before something happens, read after it."""

    def __init__(self, database: Any, collections: Sequence[str] = ("chunks", "tasks")) -> None:
        self._database = database
        watched = {"$match": {"ns.coll": {"$in": [*collections, END]}}}
        self._stream: Any = database.watch([watched])
        self._known = {
            (name, document["_id"]): [document] for name in collections for document in database[name].find()
        }

    def versions(self, collection: str) -> dict[str, list[Document]]:
        """id -> all versions of the document until the first call of this, the oldest first."""
        if self._stream is not None:
            self._database[END].insert_one({})
            for event in self._stream:
                if event["ns"]["coll"] == END:
                    break
                self._note(event)
            self._stream.close()
            self._stream = None
        return {key: found for (name, key), found in self._known.items() if name == collection}

    def _note(self, event: Document) -> None:
        place = (event["ns"]["coll"], event["documentKey"]["_id"])
        if event["operationType"] == "insert":
            self._known[place] = [event["fullDocument"]]
        elif event["operationType"] == "update":
            before = self._known[place][-1]
            self._known[place].append(_updated(before, event["updateDescription"]))
        else:
            raise AssertionError(f"{place} was removed or replaced")


def broken_rules(versions: Sequence[Document], *, hedges: int = 0) -> Iterator[str]:
    """What a chunk must never go through, said in words for each time that it did."""
    for one in versions:
        name, out = one["_id"], [lease["container"] for lease in one["leases"] if not lease["canary"]]
        if len(out) > one["replicas"] + hedges:
            yield f"{name}: {len(out)} leases for {one['replicas']} replicas"
        if len(set(out)) < len(out):
            yield f"{name}: one container has two leases"
        if (one["state"] == "done") != (one["result"] is not None):
            yield f"{name}: {one['state']} with result {one['result']}"
    for before, after in pairwise(versions):
        yield from _broken_step(before, after)


def _broken_step(before: Document, after: Document) -> Iterator[str]:
    name, old, new = after["_id"], _leases(before), _leases(after)
    if after["run"] < before["run"]:
        yield f"{name}: a run came back"
    if new - old and (old - new or len(new - old) > 1):
        yield f"{name}: one write took the leases {old - new} and gave {new - old}"
    if after["run"] != before["run"]:
        return
    if before["result"] is not None and after["result"] != before["result"]:
        yield f"{name}: accepted {before['result']}, then {after['result']}"
    if _results(after)[: len(before["candidates"])] != _results(before):
        yield f"{name}: a candidate is gone"


def _leases(document: Document) -> set[tuple[str, str]]:
    return {(lease["container"], lease["token"]) for lease in document["leases"]}


def _results(document: Document) -> list[str]:
    return [candidate["result"] for candidate in document["candidates"]]


def _updated(document: Document, change: Document) -> Document:
    after = copy.deepcopy(document)
    assert not change.get("truncatedArrays"), change
    for path, value in change["updatedFields"].items():
        *parents, last = path.split(".")
        place: Any = after
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        if isinstance(place, list) and int(last) == len(place):
            place.append(value)
        else:
            place[int(last) if isinstance(place, list) else last] = value
    for path in change["removedFields"]:
        after.pop(path, None)
    return after
