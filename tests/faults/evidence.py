"""Everything the final checks look at, read from the database and from results.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from faults.ledger import Ledger
from faults.roster import Member
from faults.workload import Given, Scientist

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is there at the end."""

    given: Given
    ledger: Ledger
    members: Mapping[str, Member]  #: container id -> the client that it is
    accounts: Mapping[str, str]  #: account id -> name
    chunks: Sequence[Document]
    results: Sequence[Document]
    errors: Sequence[Document]
    rows: Sequence[Mapping[str, str]]  #: of results.csv

    def counts(self) -> dict[str, Counter[str]]:
        """How many documents of which kind there are."""
        return {
            "results": Counter(one["verdict"] for one in self.results),
            "errors": Counter(f"{one['outcome']} {one['verdict']}" for one in self.errors),
        }


def read_evidence(
    database: Database[Document],
    given: Given,
    ledger: Ledger,
    members: Mapping[str, Member],
    scientist: Scientist,
) -> Evidence:
    """Read all of it."""
    rows: list[dict[str, str]] = []
    for task in given.tasks:
        table = scientist.ask("GET", f"/results.csv?task={task}").content.decode()
        rows += csv.DictReader(io.StringIO(table, newline=""))
    return Evidence(
        given=given,
        ledger=ledger,
        members=members,
        accounts={one["_id"]: one["name"] for one in database["accounts"].find()},
        chunks=list(database["chunks"].find({"task": {"$in": given.tasks}}, {"input": 0})),
        results=list(database["results"].find()),
        errors=list(database["errors"].find()),
        rows=rows,
    )
