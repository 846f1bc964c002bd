"""Looking at what is there: containers, health."""

from __future__ import annotations

from collections.abc import Iterable

from source_server.domain.account import Account, Role
from source_server.domain.container import Container
from source_server.stores.database import Stores


class Look:
    """Reads for people; changes nothing."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def containers(self, account: Account) -> list[Container]:
        """All containers for scientists and admins, a volunteer's own for a volunteer."""
        return self._stores.containers.all(account.id if account.role is Role.VOLUNTEER else None)

    def pseudonyms(self, accounts: Iterable[str]) -> dict[str, str]:
        """account id -> pseudonym."""
        return self._stores.accounts.pseudonyms(set(accounts))

    def health(self) -> bool:
        """True when the database answers with a schema this release knows; raises what is wrong otherwise."""
        self._stores.meta.require_schema()
        return True
