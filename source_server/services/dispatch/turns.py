"""Whose turn it is: the tasks on offer, and the projects in the order of what they have used for their share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from source_server.domain.project import Project
from source_server.domain.refusal import Unavailable
from source_server.domain.share import Claim, decayed, turns
from source_server.domain.task import Task
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

OFFER_S = 1.0  #: how old the list of tasks may be
FRESH_S = 2.0  #: and what is known of the projects
FLUSH_S = 3.0
FLUSHED = 20  #: projects whose usage is written in one go
LEAST_WEIGHT = 1e-6  #: a weight of 0 keeps a project away altogether; here it must only divide
MOST_TASKS = 10_000  #: tasks on offer that are looked at; those that run longest


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The tasks on offer at one moment, by project, each project's in the order in which they are served."""

    by_project: Mapping[str, tuple[Task, ...]] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()


class Offers:
    """Reads the tasks on offer, at most once a second. Gates are looked at again before anything is handed out."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._started: str | None = None
        self._last = Offer()

    def now(self) -> Offer:
        """The tasks on offer, as of at most a second ago."""
        with self._lock:
            if self._read_at is None or self._monotonic() - self._read_at > OFFER_S:
                self._read()
            return self._last

    def newer(self) -> Offer:
        """The same, but with a task in it that was started just now: for those who found nothing."""
        started = self._stores.tasks.last_started()
        with self._lock:
            if started != self._started:
                self._started = started
                self._read()
            return self._last

    def _read(self) -> None:
        self._read_at = self._monotonic()
        by_project: dict[str, list[Task]] = {}
        for task in self._stores.tasks.on_offer(limit=MOST_TASKS):
            by_project.setdefault(task.project, []).append(task)
        self._last = Offer(
            # Sorting is stable: longest running first among equals, as they were read.
            by_project={
                name: tuple(sorted(tasks, key=lambda one: -one.priority))
                for name, tasks in by_project.items()
            },
            ids=frozenset(task.id for tasks in by_project.values() for task in tasks),
        )


class Turns:
    """Projects in turn, and what they use: summed here and written every few seconds, so that no document is hot."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, Project] = {}
        self._known_until = 0.0
        self._unwritten: dict[str, float] = {}
        self._begun: dict[str, float] = {}  #: what newcomers, not written yet, began with
        self._flush_at = monotonic() + FLUSH_S

    def projects(self, names: Collection[str], weights: Mapping[str, float] | None = None) -> list[Project]:
        """The projects of these names, in the order in which they are to be served.

        `weights`: those of the volunteer who asks, 1 where none is named; each multiplies the project's share.
        """
        weighed = weights or {}
        now = self._stores.clock.now()
        with self._lock:
            known = self._read(names)
            claims = [self._claim(known[name], now, weighed.get(name, 1.0)) for name in names]
        return [known[name] for name in turns(claims, now)]

    def charge(self, project: str, seconds: float) -> None:
        """The project is given so much machine time. A write that fails costs its figure some precision."""
        with self._lock:
            now = self._stores.clock.now()
            self._begin(project, now)
            self._unwritten[project] = self._unwritten.get(project, 0.0) + seconds
            if self._monotonic() < self._flush_at:
                return
            self._flush_at = self._monotonic() + FLUSH_S
            due = {name: self._unwritten.pop(name) for name in list(self._unwritten)[:FLUSHED]}
            at_least = {name: self._begun.pop(name, 0.0) for name in due}
            self._known_until = 0.0
        try:
            for name, used in due.items():
                self._stores.projects.use(name, used, now, at_least=at_least[name])
        except Unavailable as error:
            log.warning("usage not written", extra={"reason": str(error)})

    def _begin(self, project: str, now: datetime) -> None:
        """A newcomer begins at the lowest figure of the others."""
        newcomer = self._known.get(project)
        if newcomer is None or newcomer.usage is not None or project in self._begun:
            return
        used = ((self._used(one, now), one.share) for one in self._known.values())
        figures = [seconds / share for seconds, share in used if seconds is not None]
        self._begun[project] = min(figures, default=0.0) * newcomer.share

    def _read(self, names: Collection[str]) -> dict[str, Project]:
        stale = self._known_until < self._monotonic()
        if stale or not self._known.keys() >= set(names):
            found = self._stores.projects.read(list(names))
            self._known = {name: found.get(name) or _unknown(name) for name in names}
            self._known_until = self._monotonic() + FRESH_S
        return self._known

    def _claim(self, project: Project, now: datetime, weight: float) -> Claim:
        return Claim(
            project=project.id,
            share=project.share * max(weight, LEAST_WEIGHT),
            priority=project.priority,
            usage=self._used(project, now),
            as_of=now,
        )

    def _used(self, project: Project, now: datetime) -> float | None:
        """What it has used by now, written or not; None for a newcomer."""
        if project.usage is not None and project.usage_as_of is not None:
            before: float | None = decayed(project.usage, project.usage_as_of, now)
        else:
            before = self._begun.get(project.id)
        return None if before is None else before + self._unwritten.get(project.id, 0.0)


def pages(
    offer: Offer, projects: Collection[Project], may: Callable[[Task], bool], *, size: int
) -> Iterator[list[Task]]:
    """The tasks of these projects that `may` be taken, in order, so many at a time."""
    page: list[Task] = []
    for project in projects:
        for task in filter(may, offer.by_project.get(project.id, ())):
            page.append(task)
            if len(page) == size:
                yield page
                page = []
    if page:
        yield page


def _unknown(name: str) -> Project:
    return Project(id=name, owner="", created=datetime.min.replace(tzinfo=timezone.utc))
