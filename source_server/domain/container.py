"""A client container's record: who it is, on which host, in which life."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from source_server.domain.account import BUILT_IN

RATE_HALF_LIFE = timedelta(hours=1)


class ContainerState(str, Enum):
    """Live containers beat; purged ones fell silent; left ones said goodbye. Records stay for provenance."""

    LIVE = "live"
    PURGED = "purged"
    LEFT = "left"


@dataclass(frozen=True, kw_only=True)
class Host:
    """A volunteer's machine: a UUID made there once, and a name it may show."""

    id: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """One client container as the source server knows it."""

    id: str
    host: Host
    account: str
    life: str
    registered: datetime
    last_seen: datetime
    state: ContainerState = ContainerState.LIVE
    labels: dict[str, str | float] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("process",)
    image: str | None = None
    features: tuple[str, ...] = ()  #: what its client knows beyond the protocol's beginnings (see `features`)
    projects: tuple[str, ...] | None = None  #: those whose jobs the volunteer lets run here; None: all
    #: The volunteer's weights by project; 1 unless named.
    shares: dict[str, float] = field(default_factory=dict)
    self_test: str = "unknown"  #: of its sandbox, by its own word: passed, failed or unknown
    cannot: dict[str, str] = field(default_factory=dict)  #: image -> why its host does not take it
    beat: int = 0  #: number of the last beat within this life
    #: Claim token -> chunks known under it, as of that beat.
    held: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    trusted: bool = False  #: labelled so by the operator, or the server's own: it may run validators
    rate: float = 0.0  #: accepted results an hour, as of `rate_as_of`
    rate_as_of: datetime | None = None

    @property
    def built_in(self) -> bool:
        """Whether it is one of the server's own: by its account, whatever it says of itself."""
        return self.account == BUILT_IN

    def allows(self, project: str) -> bool:
        """Whether the volunteer lets jobs of this project run here; a weight of 0 says no, too."""
        return (self.projects is None or project in self.projects) and self.shares.get(project, 1.0) > 0

    def rate_now(self, now: datetime) -> float:
        """Accepted results an hour by now: what was counted is forgotten by half each hour."""
        if self.rate_as_of is None:
            return self.rate
        return float(self.rate * 0.5 ** max(0.0, (now - self.rate_as_of) / RATE_HALF_LIFE))
