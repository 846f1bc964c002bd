"""Who takes part: clients on hosts of accounts, each with its place in the world."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

#: (account, hosts) with the number of clients on each host, for twenty clients; more go round again.
_LAYOUT = (
    ("ada", (3, 2)),
    ("bob", (2, 2)),
    ("cyd", (2, 2)),
    ("dot", (2,)),
    ("eve", (3,)),
    ("liars", (2,)),
)
LIARS = "liars"
LATE, FORGER = "late", "forger"  #: accounts of the run's own clients
SERVERS = HOUSEKEEPERS = 2
BEAT_S = 2.0  #: a client is purged after three of them
LEAST_CLIENTS = sum(sum(hosts) for _, hosts in _LAYOUT)

#: What honest clients say that they run in. A job that names it never comes to a liar.
HONEST_IMAGE = "sha256:" + "fa" * 32


@dataclass(frozen=True, kw_only=True)
class Member:
    """One client of the run."""

    number: int
    account: str
    host: int  #: number of its host
    host_id: str
    clock_s: int = 0  #: by how much its clock is wrong

    @property
    def liar(self) -> bool:
        """Whether it lies whenever it can."""
        return self.account == LIARS

    @property
    def honest(self) -> bool:
        """Whether all that it delivers is its own."""
        return self.account != FORGER

    @property
    def name(self) -> str:
        """How logs and the summary call it."""
        return f"client-{self.number}"


def make_roster(clients: int, *, clocks_s: Sequence[int] = ()) -> list[Member]:
    """So many clients, at least twenty; the first ones of different hosts get the wrong clocks."""
    places = _places()
    spread = dict(zip((0, 3, 5, 7), clocks_s, strict=False))
    roster = []
    for number in range(clients):
        account, host = places[number % len(places)]
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"host-{host}"))
        roster.append(
            Member(
                number=number,
                account=account,
                host=host,
                host_id=identity,
                clock_s=spread.get(number, 0),
            )
        )
    return roster


def make_stranger(number: int, account: str) -> Member:
    """A client of the run's own, on a host of its own."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"host-of-{account}"))
    return Member(number=number, account=account, host=-1, host_id=identity)


def _places() -> list[tuple[str, int]]:
    places, host = [], 0
    for account, hosts in _LAYOUT:
        for count in hosts:
            places += [(account, host)] * count
            host += 1
    return places
