"""What the volunteer allows: the values of policy.toml. Enforced by the launcher, told to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from client_container.launcher.errors import LauncherError
from client_container.launcher.policy.text import Hours

MB = 2**20
LEAST_MEMORY_A_JOB = 64 * MB
DEFAULT_MEMORY_A_JOB = 512 * MB
_STEP = 256 * MB  #: sizes that we choose are multiples of it


class BadPolicy(LauncherError):
    """The policy cannot be used; the message names the key and says what to write."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits are totals for the host, whatever the number of containers and of instances."""

    containers: int = 1  #: client containers, each of which runs at most one job at a time
    cpus: float = 1.0  #: processors for all jobs together
    memory: int = 2**30  #: bytes for all jobs together
    disk: int = 10 * 2**30  #: bytes of the file system that slots, jobs, checkpoints and kept files lie on
    image_size: int = 5 * 2**30  #: bytes that one job image may take, unpacked
    images: int = 20 * 2**30  #: bytes that all job images together may take
    transfer_a_day: int | None = None  #: bytes in and out, client containers together; None: no limit
    projects: tuple[str, ...] | None = None  #: project ids that may run here; None: all
    shares: dict[str, float] = field(default_factory=dict)  #: weight by project id; 1 unless named
    #: The volunteer's own, for jobs that ask for them.
    labels: dict[str, str | float] = field(default_factory=dict)
    gpu: bool = False  #: whether jobs that ask for graphics processors get this machine's
    registries: tuple[str, ...] = ()  #: host[:port] from which images may be pulled by digest
    private_registries: bool = False  #: whether a registry may have a private address
    #: By weekday mon..sun; a day that is missing: never; empty: always.
    hours: Hours = field(default_factory=dict)
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

    @property
    def kept_files(self) -> int:
        """Bytes that files may take which are kept from one chunk to the next, for all projects together."""
        return self.disk // 4

    def within(self, host: Policy) -> Policy:
        """This policy of one instance, no total above what the host's own policy allows."""
        return replace(
            self,
            containers=min(self.containers, host.containers),
            cpus=min(self.cpus, host.cpus),
            memory=min(self.memory, host.memory),
        )


def default_policy(processors: int, memory_bytes: int, free_disk: int) -> Policy:
    """What a volunteer gets who says nothing: the machine stays pleasant to use.

    One processor is left to the volunteer, and half of the memory (each container needs 512 MB of the other half,
    or there are fewer). Of the free disk a quarter at most is taken for data and a third for images.
    """
    memory = max(LEAST_MEMORY_A_JOB, _whole(memory_bytes // 2, at_most=memory_bytes // 2))
    containers = max(1, min(processors - 1, memory // DEFAULT_MEMORY_A_JOB))
    images = _whole(free_disk // 3, at_most=20 * 2**30)
    return Policy(
        containers=containers,
        cpus=float(containers),
        memory=memory,
        disk=_whole(free_disk // 4, at_most=10 * 2**30),
        images=images,
        image_size=min(images, 5 * 2**30),
    )


def _whole(size: int, *, at_most: int) -> int:
    """The size within its bound, as a multiple of 256 MB; small ones as they are, none below 64 MB."""
    bounded = max(64 * MB, min(size, at_most))
    return bounded // _STEP * _STEP if bounded >= _STEP else bounded // MB * MB
