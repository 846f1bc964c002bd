"""What the volunteer allows: the values of policy.toml. Enforced by the launcher, told to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import time

MINUTES = tuple[time, time]  #: from, until; until may be earlier, which means the next day


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits are totals for the host, whatever the number of containers and of instances."""

    containers: int = 1  #: client containers, each of which runs at most one job at a time
    cpus: float = 1.0  #: processors for all jobs together
    memory: int = 2**30  #: bytes for all jobs together
    disk: int = 10 * 2**30  #: bytes of the file system that slots, jobs and checkpoints lie on
    image_size: int = 5 * 2**30  #: bytes that one job image may take, unpacked
    images: int = 20 * 2**30  #: bytes that all job images together may take
    transfer_a_day: int | None = None  #: bytes in and out, client containers together; None: no limit
    projects: tuple[str, ...] | None = None  #: project ids that may run here; None: all
    shares: dict[str, float] = field(default_factory=dict)  #: weight by project id; 1 unless named
    registries: tuple[str, ...] = ()  #: host[:port] from which images may be pulled by digest
    private_registries: bool = False  #: whether a registry may have a private address
    hours: dict[str, tuple[MINUTES, ...]] = field(default_factory=dict)  #: by weekday mon..sun; empty: always
    idle_only: bool = False  #: only while nobody uses the machine
    on_battery: bool = False  #: also while on battery
    metered: bool = False  #: also on a metered network
    hottest: float | None = None  #: degrees Celsius above which jobs are frozen; None: no limit

    @property
    def cpus_a_job(self) -> float:
        """What one job gets of the processors when all containers are busy."""
        return self.cpus / self.containers

    @property
    def memory_a_job(self) -> int:
        """Bytes one job gets when all containers are busy."""
        return self.memory // self.containers

    @property
    def disk_a_job(self) -> int:
        """Bytes that /in, /out and /checkpoint of one job may take together."""
        return self.disk // (2 * self.containers)
