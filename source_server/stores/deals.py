"""Deals: runs of `/assign`, stored so that any process can go on with one that another began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pymongo.database import Database

from source_server.domain.dealing import By
from source_server.stores.gate import Document, Gate

Plan = tuple[tuple[str, str, str], ...]  #: (chunk, container, life) of each assignment


@dataclass(frozen=True, kw_only=True)
class Deal:
    """One dealing of ready chunks to live containers."""

    id: str
    owner: str  #: the account that asked
    tasks: tuple[str, ...]  #: the tasks whose chunks are dealt
    created: datetime
    by: By = By.COUNT
    done: bool = False
    step: int = 0  #: batches carried out; the guard of the next one
    place: int = 0  #: so many of `tasks`, from the first on, have been gone through
    after: float = -1.0  #: of the next one, the chunks up to this `r`
    plan: Plan = ()  #: what is about to be written
    dealt: Mapping[str, int] = field(default_factory=dict)  #: container -> chunks dealt to it so far
    #: Life -> chunks held when counted, and dealt since.
    held: Mapping[str, int] = field(default_factory=dict)
    counted: datetime | None = None  #: when `held` was last read from the chunks
    hand: str | None = None  #: the process that carries it out; None: whoever comes
    touched: datetime | None = None  #: when that one last wrote


class Deals:
    """One document a deal. Only the process that has a deal in hand writes it, until it falls silent."""

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

    def under_way(self) -> list[tuple[str, tuple[str, ...]]]:
        """(id, tasks) of the deals that are not done, oldest first."""
        found = self._gate.find({"done": False}, {"tasks": 1}, sort=[("created", 1)])
        return [(document["_id"], tuple(document["tasks"])) for document in found]

    def take(self, deal_id: str, hand: str, now: datetime, *, silent_since: datetime) -> Deal | None:
        """Take a deal in hand that nobody has, or whose process is silent since then; None when that failed."""
        free = [{"hand": None}, {"touched": {"$lt": silent_since}}]
        guard = {"_id": deal_id, "done": False, "$or": free}
        taken = self._gate.update_one(guard, {"$set": {"hand": hand, "touched": now}})
        deal = self.find(deal_id) if taken else None
        return deal if deal is not None and deal.hand == hand else None

    def plan(self, deal: Deal) -> bool:
        """Write down what comes next, before making it; False when another process has the deal in hand."""
        change = {
            "plan": [list(one) for one in deal.plan],
            "place": deal.place,
            "after": deal.after,
            "held": _pairs(deal.held),
            "counted": deal.counted,
            "touched": deal.touched,
        }
        return self._gate.update_one({**_in_hand(deal), "step": deal.step, "plan": []}, {"$set": change})

    def advance(self, deal: Deal) -> bool:
        """The plan of the step before is carried out and counted; False when another process has it in hand."""
        change = {
            "plan": [],
            "dealt": _pairs(deal.dealt),
            "held": _pairs(deal.held),
            "touched": deal.touched,
            "step": deal.step,
        }
        return self._gate.update_one({**_in_hand(deal), "step": deal.step - 1}, {"$set": change})

    def finish(self, deal: Deal) -> bool:
        """Nothing is left to deal."""
        guard = {**_in_hand(deal), "step": deal.step, "plan": []}
        return self._gate.update_one(guard, {"$set": {"done": True, "held": []}})

    def release(self, deal: Deal) -> bool:
        """Let another process go on with it."""
        return self._gate.update_one(_in_hand(deal), {"$set": {"hand": None}})


def _in_hand(deal: Deal) -> Document:
    return {"_id": deal.id, "hand": deal.hand, "done": False}


def _document(deal: Deal) -> Document:
    return {
        "_id": deal.id,
        "owner": deal.owner,
        "tasks": list(deal.tasks),
        "created": deal.created,
        "by": deal.by.value,
        "done": deal.done,
        "step": deal.step,
        "place": deal.place,
        "after": deal.after,
        "plan": [list(one) for one in deal.plan],
        "dealt": _pairs(deal.dealt),
        "held": _pairs(deal.held),
        "counted": deal.counted,
        "hand": deal.hand,
        "touched": deal.touched,
    }


def _pairs(counts: Mapping[str, int]) -> Sequence[list[str | int]]:
    return [[name, count] for name, count in sorted(counts.items())]


def _deal(document: Document) -> Deal:
    # A deal that an earlier release began has no `by`, `place`, `held` or `hand`.
    return Deal(
        id=document["_id"],
        owner=document["owner"],
        tasks=tuple(document["tasks"]),
        created=document["created"],
        by=By(document.get("by", By.COUNT.value)),
        done=document["done"],
        step=document["step"],
        place=document.get("place", 0),
        after=document.get("after", -1.0),
        plan=tuple((chunk, container, life) for chunk, container, life in document["plan"]),
        dealt=dict(document["dealt"]),
        held=dict(document.get("held", ())),
        counted=document.get("counted"),
        hand=document.get("hand"),
        touched=document.get("touched"),
    )
