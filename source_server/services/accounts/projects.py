"""Projects are made, changed and listed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from source_server.domain.account import Account, Role
from source_server.domain.job import Job
from source_server.domain.notice import Target
from source_server.domain.project import Project
from source_server.domain.refusal import Conflict, NotAllowed, NotFound, Unavailable
from source_server.domain.validation import Validation
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

MOST_PROJECTS = 1000  #: of one account; an admin may have more


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is to be said of a project; None: as it is."""

    share: float | None = None
    assigned_only: bool | None = None
    priority: int | None = None
    validation: Validation | None = None
    validator: Job | None = None
    image: str | None = None
    notify: tuple[Target, ...] | None = None


class Projects:
    """Everybody sees and changes only their own, an admin all."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def add(self, account: Account, name: str, policy: Policy) -> bool:
        """Make a project, or change the one that this account has already; whether it was made.

        Raises Conflict when another account has one of this name or this one has too many, and what `change` raises.
        """
        _require_allowed(account, policy)
        self._require_room(account, name)
        made = True
        try:
            self._stores.projects.add(Project(id=name, owner=account.id, created=self._stores.clock.now()))
        except AlreadyThere:
            if self._stores.projects.find_owner(name) != account.id:
                raise Conflict(f"The project name {name} is taken; choose another.") from None
            if not self._stores.projects.confirm(name, account.id):
                raise Unavailable(
                    "The database has just lost this project; send the same request again."
                ) from None
            made = False
        self.change(account, name, policy)
        return made

    def _require_room(self, account: Account, name: str) -> None:
        if account.role is Role.ADMIN or self._stores.projects.find_owner(name) is not None:
            return
        if self._stores.projects.count(account.id, at_most=MOST_PROJECTS) >= MOST_PROJECTS:
            raise Conflict(f"You have {MOST_PROJECTS} projects, and may have no more: use one of those.")

    def change(self, account: Account, name: str, policy: Policy) -> Project:
        """Change what the policy names; raises NotFound, or NotAllowed for a priority that is not the operator's."""
        _require_allowed(account, policy)
        project = self.get(account, name)
        wished: dict[str, Any] = {
            "share": policy.share,
            "assigned_only": policy.assigned_only,
            "priority": policy.priority,
            "image": policy.image,
        }
        changed = {field: value for field, value in wished.items() if value is not None}
        if changed:
            self._stores.projects.change(name, **changed)
        if policy.notify is not None:
            self._stores.projects.set_targets(name, policy.notify)
        if policy.validation is not None:
            self._stores.projects.set_rule(name, policy.validation, policy.validator)
        return (
            self.get(account, name) if changed or policy.validation or policy.notify is not None else project
        )

    def get(self, account: Account, name: str) -> Project:
        """The project of this name; raises NotFound unless it is the caller's."""
        project = self._stores.projects.find(name)
        if project is None or (project.owner != account.id and account.role is not Role.ADMIN):
            raise NotFound(f"There is no project {name} of yours.")
        return project

    def of(self, account: Account) -> list[Project]:
        """The caller's projects by name; every one for an admin."""
        names = self._stores.projects.names(None if account.role is Role.ADMIN else account.id)
        found = self._stores.projects.read(names)
        return [found[name] for name in names if name in found]


def _require_allowed(account: Account, policy: Policy) -> None:
    if policy.priority is not None and account.role is not Role.ADMIN:
        raise NotAllowed("A project's priority is the operator's to set.")
