"""The record of volunteers' hosts, for their owners and the operator."""

from __future__ import annotations

from source_server.domain.account import Account, Role
from source_server.domain.refusal import NotFound
from source_server.domain.trust import HostRecord
from source_server.services.containers.live import LiveContainers
from source_server.stores.database import Stores


class Hosts:
    """Shows records, and clears a host whose trouble is over."""

    def __init__(self, stores: Stores, live: LiveContainers) -> None:
        self._stores = stores
        self._live = live

    def of(self, account: Account) -> list[HostRecord]:
        """The caller's hosts, all of them for an admin; quarantined ones first. Newcomers have no record yet."""
        return self._stores.hosts.all(None if account.role is Role.ADMIN else account.id)

    def clear(self, pseudonym: str, host: str) -> bool:
        """End the quarantine of an account's host; False when it was in none; raises NotFound."""
        account = self._stores.accounts.find_by_pseudonym(pseudonym)
        if account is None or self._stores.hosts.find(account.id, host) is None:
            raise NotFound(f"There is no record of a host {host} of {pseudonym}.")
        cleared = self._stores.hosts.clear(account.id, host)
        self._live.forget()
        return cleared
