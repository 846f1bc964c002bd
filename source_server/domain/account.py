"""Accounts: people, their roles, and their keys, which are stored only as hashes."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import Enum

BUILT_IN = "built-in"  #: the id of the account of the server's own containers; people's ids are random


class Role(str, Enum):
    """What an account may do. Each role is its own; an admin may do everything."""

    VOLUNTEER = "volunteer"
    SCIENTIST = "scientist"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person. `pseudonym` is the only thing of an account that an export carries."""

    id: str
    name: str
    role: Role
    pseudonym: str

    def may(self, role: Role) -> bool:
        """Whether the account may act in that role."""
        return self.role in (role, Role.ADMIN)


def new_key(prefix: str) -> str:
    """A new credential with 256 random bits; `prefix` tells keys of accounts (dca) and containers (dcc) apart."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """What is stored of a key. Plain SHA-256 suffices: the keys are random, not chosen by people."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
