"""The parts of a running launcher that need an engine, and how they are put together: the only place that knows."""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_container.launcher.clients.condition import forget_client
from client_container.launcher.clients.engine import ClientEngine
from client_container.launcher.clients.keeper import Keeper
from client_container.launcher.clients.plan import FRONT_CPUS, FRONT_MEMORY, Front, Plan, own_labels
from client_container.launcher.files.slots import Slots
from client_container.launcher.images.engine import ImageEngine
from client_container.launcher.images.images import Images
from client_container.launcher.jobs.door import Door
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.jobs.jobs import Jobs
from client_container.launcher.jobs.ran import Ran
from client_container.launcher.policy.policy import Policy
from client_container.launcher.self_test.run import SelfTest
from client_container.launcher.self_test.schedule import Verdict
from client_container.launcher.service.installation import Installation, write_bundle
from client_container.launcher.wall.firewall import Target
from client_container.launcher.wall.network import Wall
from client_container.machine import Label, gpu_labels, machine_labels, nvidia_gpus, without_gpus


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the parts ask of the service that they belong to."""

    policy: Callable[[], Policy]
    gate: Callable[[], str | None]  #: why no job may be started now
    record: Callable[[Ran], None]
    totals: Callable[[], tuple[float, int]]  #: processors and bytes for the jobs of all instances
    stats: Callable[[int], dict[str, Any]]  #: what a slot's client is told


@dataclass(frozen=True, kw_only=True)
class Crew:
    """All of them."""

    engine: ClientEngine
    wall: Wall
    slots: Slots
    images: Images
    jobs: Jobs
    door: Door
    keeper: Keeper
    self_test: Callable[[], Verdict]  #: tries every wall out


def assemble(installation: Installation, host_id: str, key: bytes, hooks: Hooks) -> Crew:
    """Put them together; raises EngineAway as long as no engine answers."""
    engine = ClientEngine()
    labels = own_labels(installation.instance, host_id)
    slots = Slots(installation.slots, first_uid=installation.first_uid)
    images = Images(
        engine=ImageEngine(),
        state_file=installation.launcher_folder / "images.json",
        policy=hooks.policy,
    )
    jobs = _jobs(installation, labels, hooks, images=images, slots=slots)
    wall = _wall(installation, labels, engine)
    plan = make_plan(installation, host_id, image=installation.image, key=key, policy=hooks.policy())
    keeper = Keeper(engine, plan, 0, key, time.monotonic)

    def prepare(slot: int) -> None:
        slots.prepare(slot, keeper.key)
        forget_client(installation.slots, slot)

    keeper.prepare = prepare
    door = Door(slots, jobs, images, hooks.stats)
    return Crew(
        engine=engine,
        wall=wall,
        slots=slots,
        images=images,
        jobs=jobs,
        door=door,
        keeper=keeper,
        self_test=lambda: SelfTest(
            engine=JobEngine(),
            wall=wall,
            plan=keeper.plan,
            home=installation.home,
            needs_disk=not installation.makes_disk,
            gpus=nvidia_gpus() if hooks.policy().gpu else None,
        ).run(),
    )


def _jobs(
    installation: Installation, labels: Mapping[str, str], hooks: Hooks, *, images: Images, slots: Slots
) -> Jobs:
    return Jobs(
        engine=JobEngine(),
        home=installation.home,
        instance=installation.instance,
        labels=labels,
        first_uid=installation.first_uid,
        policy=hooks.policy,
        gate=hooks.gate,
        images=images,
        slots=slots,
        record=hooks.record,
        totals=hooks.totals,
    )


def _wall(installation: Installation, labels: Mapping[str, str], engine: ClientEngine) -> Wall:
    return SharedWall(
        engine=engine,
        instance=installation.instance,
        labels=labels,
        server=installation.server,
        proxy=installation.proxy,
        extra_hosts=installation.extra_hosts,
    )


class SharedWall(Wall):
    """A wall for two threads: the service's loop, and a self-test."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._turn = threading.RLock()

    def ensure(self) -> str:
        """As the wall does, one at a time."""
        with self._turn:
            return super().ensure()

    def remove(self) -> None:
        """As the wall does, one at a time."""
        with self._turn:
            super().remove()

    def allowed(self) -> list[Target]:
        """As the wall does, one at a time."""
        with self._turn:
            return super().allowed()


@functools.lru_cache(maxsize=1)
def machine_facts() -> dict[str, Label]:
    """What this machine is, as it was found when the launcher started; graphics processors only where they are lent."""
    return without_gpus(machine_labels())


def make_plan(
    installation: Installation,
    host_id: str,
    *,
    image: str,
    key: bytes,
    policy: Policy,
    network: str = "none",
    bundle: tuple[Path, str] | None = None,
    gpus: Sequence[str] = (),
) -> Plan:
    """The plan of the client containers. `bundle`: the file of certificates to trust, and its digest. `gpus`: names of
    the graphics processors that jobs get.
    """
    front = Front(
        slots=str(installation.slots),
        network=network,
        ca_file=str(bundle[0]) if bundle else None,
        ca_digest=bundle[1] if bundle else None,
        proxy=installation.proxy,
        job_cpus=policy.cpus_a_job,
        job_memory=policy.memory_a_job,
        job_disk=policy.disk_a_job,
        image_size=policy.image_size,
    )
    return Plan(
        instance=installation.instance,
        host_id=host_id,
        host_name=installation.host_name,
        server=installation.server,
        key_digest=hashlib.sha256(key).hexdigest(),
        image=image,
        cpus=FRONT_CPUS,
        memory=FRONT_MEMORY,
        extra_hosts=installation.extra_hosts,
        first_uid=installation.first_uid,
        facts={**machine_facts(), **gpu_labels(gpus)},
        labels=dict(policy.labels),
        front=front,
    )


def bundle_of(installation: Installation) -> tuple[Path, str] | None:
    """The certificates that clients trust, written for them; None when the image's own will do."""
    if installation.ca_file is None:
        return None
    target = installation.launcher_folder / "ca-bundle.pem"
    return target, write_bundle(installation.ca_file, target)
