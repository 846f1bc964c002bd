"""The shapes of answers about client containers and their hosts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from source_server.web.shapes.base import Instant, Said


class Host(Said):
    """A host's record."""

    account: str | None
    host: str
    limit: float | None
    agreed: int
    streak: int
    disagreed: int
    blamed: int
    passed: int
    quarantined: Instant
    why: str | None


class Hosts(Said):
    """Hosts, quarantined ones first."""

    hosts: list[Host]


class Cleared(Said):
    """Whether a quarantine was ended."""

    cleared: bool


class HostName(Said):
    """A container's machine; its name is its owner's and the operator's to see."""

    id: str
    name: str | None = None


class ContainerPolicy(Said):
    """What the volunteer allows."""

    projects: list[str] | None
    shares: dict[str, float]


class Container(Said):
    """A client container's record."""

    id: str
    host: HostName
    account: str | None
    state: Literal["live", "purged", "left"]
    life: str
    registered: Instant
    last_seen: Instant
    labels: dict[str, str | float]
    resources: dict[str, float]
    runtimes: list[str]
    image: str | None
    features: list[str] = Field(
        default=[], description="What its client knows beyond the protocol's beginnings."
    )
    policy: ContainerPolicy
    self_test: str
    cannot: dict[str, str]
    beat: int
    held: int
    paused: bool
    trusted: bool
    built_in: bool = Field(description="One of the server's own.")


class Containers(Said):
    """Client containers, live ones first."""

    containers: list[Container]
