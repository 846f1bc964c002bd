"""A container registers: it gets a record, a new life and a key of its own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from source_server.domain.account import Account, key_hash, new_key
from source_server.domain.container import Container, Host
from source_server.domain.refusal import NotAllowed, ProtocolUnknown
from source_server.services.containers.give_back import IN_REQUEST, GiveBack
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

PROTOCOL = 1
MOST_CONTAINERS = 10_000  #: of one account, dead ones among them: records are never removed


@dataclass(frozen=True, kw_only=True)
class Application:
    """What a client says of itself when it registers."""

    protocol: int
    id: str
    host: Host
    labels: dict[str, str | float]
    resources: dict[str, float]
    runtimes: tuple[str, ...]
    image: str | None
    features: tuple[str, ...] = ()
    projects: tuple[str, ...] | None = None
    shares: dict[str, float] = field(default_factory=dict)
    self_test: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What it gets: `key` is shown this once and stored only as a hash."""

    container: Container
    key: str


class Register:
    """Makes or renews a container's record under the account whose key it showed."""

    def __init__(self, stores: Stores, give_back: GiveBack) -> None:
        self._stores = stores
        self._give_back = give_back

    def __call__(self, account: Account, application: Application) -> Registration:
        """Raises ProtocolUnknown, or NotAllowed when the id belongs to another account or this one has too many."""
        require_protocol(application.protocol)
        before = self._stores.containers.find(application.id)
        if before is None and self._stores.containers.known_of(account.id) >= MOST_CONTAINERS:
            raise NotAllowed(
                f"This account has {MOST_CONTAINERS} containers, the most it may have: lend with another one."
            )
        registration = self._new_life(account, application)
        if before is not None:
            self._give_back.life(before.id, before.life, host=before.host.id, most=IN_REQUEST)
        return registration

    def _new_life(self, account: Account, application: Application) -> Registration:
        now = self._stores.clock.now()
        container = Container(
            id=application.id,
            host=application.host,
            account=account.id,
            life=str(uuid.uuid4()),
            registered=now,
            last_seen=now,
            labels=application.labels,
            resources=application.resources,
            runtimes=application.runtimes,
            image=application.image,
            features=application.features,
            projects=application.projects,
            shares=application.shares,
            self_test=application.self_test,
        )
        key = new_key("dcc")
        try:
            registered = self._stores.containers.register(container, key_hash(key))
        except AlreadyThere:  # two first registrations of one id at once
            registered = self._stores.containers.register(container, key_hash(key))
        if not registered:
            raise NotAllowed(
                "This container id belongs to another account: show that one's key, or give the client an empty home."
            )
        return Registration(container=container, key=key)


def require_protocol(protocol: int) -> None:
    """Raises ProtocolUnknown unless this server speaks it."""
    if protocol != PROTOCOL:
        raise ProtocolUnknown(f"This server speaks protocol {PROTOCOL}, not {protocol}; update the client.")
