"""Projects, with the machine time that they have used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from pymongo.database import Database

from source_server.domain.job import Job
from source_server.domain.notice import Target
from source_server.domain.project import Project
from source_server.domain.share import HALF_LIFE
from source_server.domain.validation import Validation
from source_server.stores.gate import Document, Gate
from source_server.stores.job_documents import read_job
from source_server.stores.limit_documents import read_targets, targets_document
from source_server.stores.task_documents import read_validation, rule_documents


class Projects:
    """A project's name is its id; it belongs to the account that made it."""

    def __init__(self, database: Database[Document]) -> None:
        self._gate = Gate(database, "projects")

    def add(self, project: Project) -> None:
        """Store a new project; raises AlreadyThere."""
        document = {**asdict(project), **rule_documents(project.validation, project.validator)}
        self._gate.insert({"_id": document.pop("id"), **document})

    def find(self, name: str) -> Project | None:
        """The project of this name, or None."""
        return self.read([name]).get(name)

    def read(self, names: Sequence[str]) -> dict[str, Project]:
        """The projects of these names, by name; unknown ones are absent."""
        found = self._gate.find({"_id": {"$in": list(names)}})
        return {one["_id"]: _project(one) for one in found}

    def find_owner(self, name: str) -> str | None:
        """The account that owns the project, or None where there is no such project."""
        found = self.find(name)
        return None if found is None else found.owner

    def confirm(self, name: str, owner: str) -> bool:
        """Whether the project is this account's, and a majority has it."""
        return self._gate.confirm({"_id": name, "owner": owner})

    def names(self, owner: str | None) -> list[str]:
        """The projects of this account (None: of all), by name."""
        query = {} if owner is None else {"owner": owner}
        return [document["_id"] for document in self._gate.find(query, {"_id": 1}, sort=[("_id", 1)])]

    def count(self, owner: str, *, at_most: int) -> int:
        """How many projects the account has, counting up to `at_most`."""
        return self._gate.count({"owner": owner}, limit=at_most)

    def set_rule(self, name: str, validation: Validation | None, validator: Job | None) -> bool:
        """How answers of its later tasks are checked; False when there is none of this name."""
        return self._gate.update_one({"_id": name}, {"$set": rule_documents(validation, validator)})

    def set_targets(self, name: str, targets: Sequence[Target]) -> None:
        """Who is told about its later tasks."""
        self._gate.update_one({"_id": name}, {"$set": {"notify": targets_document(targets)}})

    def change(self, name: str, **fields_: Any) -> bool:
        """Set these fields of the project; False when there is none of this name."""
        return self._gate.update_one({"_id": name}, {"$set": fields_})

    def use(self, name: str, seconds: float, now: datetime, *, at_least: float) -> None:
        """Add machine time to a project's usage, which decays; a newcomer's begins at `at_least`."""
        age = {"$subtract": [now, {"$ifNull": ["$usage_as_of", now]}]}
        halves = {"$divide": [{"$max": [age, 0]}, HALF_LIFE / timedelta(milliseconds=1)]}
        left = {"$multiply": [{"$ifNull": ["$usage", at_least]}, {"$pow": [0.5, halves]}]}
        change = {"usage": {"$add": [left, seconds]}, "usage_as_of": now}
        self._gate.update_one({"_id": name}, [{"$set": change}], quick=True)


def _project(document: Document) -> Project:
    known = {name: value for name, value in document.items() if name != "_id"}
    known["validation"] = read_validation(known["validation"]) if known.get("validation") else None
    known["validator"] = read_job(known["validator"]) if known.get("validator") else None
    known["notify"] = read_targets(known.get("notify"))
    return Project(id=document["_id"], **known)
