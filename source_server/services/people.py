"""Accounts are made by the operator; every request shows a key and is told who it is."""

from __future__ import annotations

import re
import secrets
import uuid

from source_server.domain.account import Account, Role, key_hash, new_key
from source_server.domain.container import Container
from source_server.domain.refusal import BadInput, Conflict, NotAllowed, NotFound, UnknownKey
from source_server.stores.database import Stores
from source_server.stores.gate import AlreadyThere

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


class People:
    """Who is who."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def add(self, name: str, role: Role) -> str:
        """Make an account and answer its key, which is shown this once; raises BadInput or Conflict."""
        if not _NAME.fullmatch(name):
            raise BadInput(
                "An account's name has 1 to 100 letters, digits and . _ @ + -, and begins with one."
            )
        key = new_key("dca")
        account = Account(
            id=uuid.uuid4().hex, name=name, role=role, pseudonym=f"{role.value}-{secrets.token_hex(4)}"
        )
        try:
            self._stores.accounts.add(account, key_hash(key))
        except AlreadyThere:
            raise Conflict(
                f"There is an account {name} already; `account new-key` gives it a new key."
            ) from None
        return key

    def new_key(self, name: str) -> str:
        """Give an account a new key, which ends the earlier one; raises NotFound."""
        key = new_key("dca")
        if not self._stores.accounts.replace_key(name, key_hash(key)):
            raise NotFound(f"There is no account {name}.")
        return key

    def is_key_of(self, key: str, name: str) -> bool:
        """Whether this key opens the account of that name."""
        account = self._stores.accounts.find_by_key(key_hash(key)) if key else None
        return account is not None and account.name == name

    def account(self, key: str | None, role: Role) -> Account:
        """The account whose key this is; raises UnknownKey, or NotAllowed when it may not act in that role."""
        account = self.anyone(key)
        if not account.may(role):
            raise NotAllowed(f"This needs an account with the role {role.value}, not {account.role.value}.")
        return account

    def anyone(self, key: str | None) -> Account:
        """The account whose key this is, in whatever role; raises UnknownKey."""
        if key is None:
            raise UnknownKey("Show an account's key as `Authorization: Bearer KEY`.")
        account = self._stores.accounts.find_by_key(key_hash(key))
        if account is None:
            raise UnknownKey("This account's key is not known here.")
        return account

    def somebody(self, key: str | None) -> str:
        """The id of the account whose key this is, or whose container's; raises UnknownKey."""
        container = self._stores.containers.find_by_key(key_hash(key)) if key else None
        return self.anyone(key).id if container is None else container.account

    def container(self, key: str | None) -> Container:
        """The container whose own key this is; raises UnknownKey."""
        container = self._stores.containers.find_by_key(key_hash(key)) if key else None
        if container is None:
            raise UnknownKey("This key is not a container's, or its container has registered again since.")
        return container
