"""What is the same for all jobs of an instance, and what each slot has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from client_container.launcher.files.cache import Cache
from client_container.launcher.files.slots import Slots
from client_container.launcher.jobs.control import Control
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.execution import GRACE_S, LINGER_S
from client_container.launcher.jobs.manifest import Allowance
from client_container.launcher.jobs.pause_elf import write_pause_program
from client_container.launcher.jobs.places import Places
from client_container.launcher.jobs.story import Story
from client_container.launcher.jobs.warm import Cell
from client_container.launcher.line.wire import Run


@dataclass(eq=False)
class Job:
    """One accepted request: what runs, or ran, in a slot."""

    slot: int
    request: Run
    allowance: Allowance
    image: str  #: id
    since: datetime
    story: Story
    control: Control = field(default_factory=Control)
    over: threading.Event = field(default_factory=threading.Event)  #: the slot is free again

    @property
    def checkpoint(self) -> str:
        """What a checkpoint belongs to: the chunk, and its run once it is run anew."""
        chunk = self.request.chunk
        return chunk.id if chunk.run == 0 else f"{chunk.id}\0{chunk.run}"

    @property
    def running(self) -> bool:
        """Whether its end has not been told yet."""
        return not self.story.finished


@dataclass(eq=False)
class Bay:
    """What a slot has: the job that came last, and the container that is kept for the next."""

    slot: int
    entering: threading.Lock = field(default_factory=threading.Lock)  #: requests of one slot come one by one
    job: Job | None = None
    cell: Cell | None = None
    token: str = ""  #: by which container and folder are named, from before they are made until they are gone
    idle_since: float = 0.0  #: on the jobs' clock


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is the same for all jobs of an instance."""

    engine: JobEngine
    slots: Slots
    cache: Cache
    places: Places
    pause: Path  #: the pause program's file
    labels: Mapping[str, str]
    first_uid: int
    name: str  #: with which the names of the containers begin
    cgroup_parent: str = ""
    runtime: str | None = None
    grace_s: float = GRACE_S
    linger_s: float = LINGER_S
    startable: set[str] = field(default_factory=set)  #: ids of images that were looked at

    def container_name(self, slot: int, token: str) -> str:
        """Name of a job container."""
        return f"{self.name}-job-{slot}-{token[:8]}"

    def folder_name(self, slot: int, token: str) -> str:
        """Name of a job container's folder."""
        return f"{slot}-{token}"


def surroundings(
    *,
    engine: JobEngine,
    slots: Slots,
    home: Path,
    instance: str,
    labels: Mapping[str, str],
    first_uid: int,
    files: Callable[[], int],
    cgroup_parent: str,
    runtime: str | None,
    grace_s: float,
    linger_s: float,
) -> Surroundings:
    """Make what jobs need in `home`, which must allow programs to be run: jobs live in home/slots. Raises OSError.

    `files`: bytes that kept files may take.
    """
    home.mkdir(parents=True, exist_ok=True)
    made = Surroundings(
        engine=engine,
        slots=slots,
        cache=Cache(home / "slots" / "cache", slots, limit=files),
        places=Places(home / "slots", instance=instance),
        pause=write_pause_program(home / "pause"),
        labels=dict(labels),
        first_uid=first_uid,
        name=f"dockercomp-{instance}-{labels.get('dockercomp.host', '')[:8]}",
        cgroup_parent=cgroup_parent,
        runtime=runtime,
        grace_s=grace_s,
        linger_s=linger_s,
    )
    made.places.prepare()
    made.cache.prepare()
    return made
