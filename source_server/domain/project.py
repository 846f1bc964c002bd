"""Projects: groups of tasks with one owner, one share of the machines and one policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from source_server.domain.job import Job
from source_server.domain.notice import Target
from source_server.domain.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project's name is its id."""

    id: str
    owner: str
    created: datetime
    share: float = 1.0  #: what it may use, relative to the other projects
    priority: int = 0  #: strict: with higher ones at work, lower ones get nothing; the operator's to set
    assigned_only: bool = False  #: chunks go only to the container they were dealt to
    validation: Validation | None = None  #: the rule of its tasks that bring none
    validator: Job | None = None
    image: str | None = None  #: of its tasks' jobs that name none
    notify: tuple[Target, ...] = ()  #: who is told about its tasks that name nobody
    usage: float | None = None  #: seconds of machine time, decayed, as of `usage_as_of`; None: nothing yet
    usage_as_of: datetime | None = None
