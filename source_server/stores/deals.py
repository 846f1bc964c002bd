"""Deals: runs of `/assign`, stored so that any process can go on with one that another began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pymongo.database import Database

from source_server.stores.gate import Document, Gate


@dataclass(frozen=True, kw_only=True)
class Deal:
    """One dealing of ready chunks to live containers."""

    id: str
    owner: str  #: the account that asked
    tasks: tuple[str, ...]  #: the tasks whose chunks are dealt
    created: datetime
    done: bool = False
    step: int = 0  #: batches carried out; the guard of the next one
    plan: tuple[tuple[str, str, str], ...] = ()  #: (chunk, container, life) about to be written
    dealt: Mapping[str, int] = field(default_factory=dict)  #: container -> chunks dealt to it so far


class Deals:
    """One document a deal."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "deals")

    def ensure_indexes(self) -> None:
        """The few that are under way."""
        self._gate.index([("created", 1)], name="under_way", partialFilterExpression={"done": False})

    def add(self, deal: Deal) -> None:
        """Store a new deal."""
        self._gate.insert(_document(deal))

    def find(self, deal_id: str) -> Deal | None:
        """The deal with this id, or None."""
        found = self._gate.find_one({"_id": deal_id})
        return None if found is None else _deal(found)

    def under_way(self) -> list[Deal]:
        """The deals that are not done, oldest first."""
        return [_deal(document) for document in self._gate.find({"done": False}, sort=[("created", 1)])]

    def plan(self, deal: Deal, plan: Sequence[tuple[str, str, str]]) -> bool:
        """Write down which assignments come next, before making them; False when another process went on."""
        guard = {"_id": deal.id, "step": deal.step, "plan": [], "done": False}
        return self._gate.update_one(guard, {"$set": {"plan": [list(one) for one in plan]}})

    def advance(self, deal: Deal, dealt: Mapping[str, int]) -> bool:
        """The plan is carried out: count it, once."""
        guard = {"_id": deal.id, "step": deal.step, "done": False}
        counted = [[container, count] for container, count in sorted(dealt.items())]
        return self._gate.update_one(guard, {"$set": {"plan": [], "dealt": counted, "step": deal.step + 1}})

    def finish(self, deal: Deal) -> bool:
        """Nothing is left to deal."""
        return self._gate.update_one(
            {"_id": deal.id, "step": deal.step, "plan": []}, {"$set": {"done": True}}
        )


def _document(deal: Deal) -> Document:
    return {
        "_id": deal.id,
        "owner": deal.owner,
        "tasks": list(deal.tasks),
        "created": deal.created,
        "done": deal.done,
        "step": deal.step,
        "plan": [list(one) for one in deal.plan],
        "dealt": [[container, count] for container, count in deal.dealt.items()],
    }


def _deal(document: Document) -> Deal:
    return Deal(
        id=document["_id"],
        owner=document["owner"],
        tasks=tuple(document["tasks"]),
        created=document["created"],
        done=document["done"],
        step=document["step"],
        plan=tuple((chunk, container, life) for chunk, container, life in document["plan"]),
        dealt=dict(document["dealt"]),
    )
