"""When a chunk that fails is set aside: the same rules whether one host takes part or a thousand."""

from __future__ import annotations

from dataclasses import dataclass

from source_server.domain.chunk import Chunk

FAILED_HOSTS = 3  #: distinct hosts that failed, after which a chunk is set aside
FAILED_ACCOUNTS = 2  #: and of so many accounts, where as many are live
MAX_FAILURES = 6  #: failed attempts after which it is set aside at the latest
MAX_LOSSES = 5  #: leases lost while executing, likewise


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Who could compute a task's chunks now: hosts and accounts of the live containers that fit."""

    hosts: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()


def must_set_aside(chunk: Chunk, fleet: Fleet | None = None) -> bool:
    """Whether the chunk has failed or vanished often enough; with no fleet known, by its own record alone."""
    if chunk.failures >= MAX_FAILURES or chunk.losses >= MAX_LOSSES:
        return True
    if not chunk.failed:
        return False
    return _failed_widely(chunk, fleet) or _data_is_bad(chunk, fleet)


def _failed_widely(chunk: Chunk, fleet: Fleet | None) -> bool:
    hosts = {failure.host for failure in chunk.failed}
    accounts = {failure.account for failure in chunk.failed}
    if len(hosts) >= FAILED_HOSTS and len(accounts) >= _accounts_wanted(fleet):
        return True
    # With fewer hosts than three, all of them have to fail; and more than once, for a full disk passes.
    few = fleet is not None and 0 < len(fleet.hosts) < FAILED_HOSTS
    return few and fleet is not None and fleet.hosts <= hosts and chunk.failures >= FAILED_HOSTS


def _accounts_wanted(fleet: Fleet | None) -> int:
    # With no fleet known the strict reading holds: what was let pass when it failed is not set aside on waking.
    return 1 if fleet is not None and len(fleet.accounts) < FAILED_ACCOUNTS else FAILED_ACCOUNTS


def _data_is_bad(chunk: Chunk, fleet: Fleet | None) -> bool:
    """Exit 65 is final once a second host agrees, or at once when there is no other to ask."""
    hosts = {failure.host for failure in chunk.failed if failure.bad_data}
    if hosts and fleet is not None and fleet.hosts <= hosts:
        return True
    return is_confirmed_bad(chunk, fleet)


def is_confirmed_bad(chunk: Chunk, fleet: Fleet | None) -> bool:
    """Whether a second host says as well that the data is bad, of another account where two are live.

    Then nothing speaks against those who said it. That nobody else could be asked is no such proof.
    """
    said = [failure for failure in chunk.failed if failure.bad_data]
    accounts = {failure.account for failure in said}
    return len({failure.host for failure in said}) >= 2 and len(accounts) >= _accounts_wanted(fleet)
