"""Accounts are made by the operator; every request shows a key and is told who it is."""

from __future__ import annotations

import re
import secrets
import uuid

from source_server.domain.account import BUILT_IN, Account, Role, key_hash, new_key
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

    def built_in(self) -> str:
        """Make the account of the server's own containers, or give it a new key, which is shown this once."""
        key = new_key("dca")
        if self._stores.accounts.renew(BUILT_IN, key_hash(key)) is not None:
            return key
        # Somebody may have had the name before the server had the account: then that one is somebody's.
        for name in (BUILT_IN, f"{BUILT_IN}-{secrets.token_hex(4)}"):
            account = Account(id=BUILT_IN, name=name, role=Role.VOLUNTEER, pseudonym=BUILT_IN)
            try:
                self._stores.accounts.add(account, key_hash(key))
            except AlreadyThere:
                continue
            return key
        raise Conflict("Another process made the built-in account at this moment; start again.")

    def is_built_in_key(self, key: str) -> bool:
        """Whether this key opens the account of the server's own containers."""
        account = self._stores.accounts.find_by_key(key_hash(key)) if key else None
        return account is not None and account.id == BUILT_IN

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

    def owner_of(self, project: str) -> Account:
        """The account that a project belongs to; raises NotFound."""
        owner = self._stores.projects.find_owner(project)
        account = None if owner is None else self._stores.accounts.find(owner)
        if account is None:
            raise NotFound(f"There is no project {project} any more, or its owner's account is gone.")
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
