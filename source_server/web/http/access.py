"""Who calls: the key in the request, and the services that the app was built with."""

from __future__ import annotations

from flask import current_app, request

from source_server.domain.account import Account, Role
from source_server.domain.container import Container
from source_server.web.http.services import Services

EXTENSION = "dockercomp"


def services() -> Services:
    """The services of the current app."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def bearer() -> str | None:
    """The key that the request shows, or None."""
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.strip() else None


def account_as(role: Role) -> Account:
    """The calling account; raises UnknownKey or NotAllowed."""
    return services().people.account(bearer(), role)


def any_account() -> Account:
    """The calling account, whatever its role; raises UnknownKey."""
    return services().people.anyone(bearer())


def any_key() -> str:
    """The id of the account that calls, by itself or by a container; raises UnknownKey."""
    return services().people.somebody(bearer())


def calling_container() -> Container:
    """The calling container; raises UnknownKey."""
    return services().people.container(bearer())
