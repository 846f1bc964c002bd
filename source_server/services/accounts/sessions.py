"""Sessions of pages: an account's key is exchanged for a cookie's text that lasts for some hours."""

from __future__ import annotations

from source_server.domain import session as rules
from source_server.domain.account import Account, key_hash
from source_server.domain.refusal import NotAllowed, UnknownKey
from source_server.domain.session import LIFE, Session
from source_server.services.accounts.people import People
from source_server.stores.database import Stores


class Sessions:
    """Nothing is stored: a session ends by itself, and with the key that opened it."""

    def __init__(self, stores: Stores, people: People, *, secret: bytes) -> None:
        self._stores, self._people, self._secret = stores, people, secret

    def open(self, key: str) -> str:
        """A session of the account with this key; raises UnknownKey."""
        account = self._people.anyone(key)
        mark = rules.fingerprint(self._secret, key_hash(key))
        ends = self._stores.clock.now() + LIFE
        return rules.seal(self._secret, Session(account=account.id, key=mark, ends=ends))

    def account(self, session: str | None) -> Account:
        """Whose session it is; raises UnknownKey for one that has ended, as with its key."""
        said = None if session is None else rules.unseal(self._secret, session, self._stores.clock.now())
        found = None if said is None else self._stores.accounts.find_with_key(said.account)
        if said is None or found is None or rules.fingerprint(self._secret, found[1]) != said.key:
            raise UnknownKey("Sign in: there is no session, or it has ended.")
        return found[0]

    def csrf_token(self, session: str) -> str:
        """What the session's pages show with everything that changes something."""
        return rules.csrf_token(self._secret, session)

    def require_csrf_token(self, session: str, shown: str | None) -> None:
        """Raises NotAllowed unless it is the session's: else any other site's page could act for who is signed in."""
        if shown is None or not rules.is_csrf_token(self._secret, session, shown):
            raise NotAllowed("This did not come from a page of this server; load the page again.")
