"""Tickets: the server's proof that a container was given a chunk. They never expire."""

from __future__ import annotations

import base64
import hashlib
import hmac


def ticket(secret: bytes, *, chunk: str, run: int, container: str, token: str) -> str:
    """The ticket for this chunk, run, container and claim token: 43 characters of URL-safe base64."""
    proved = "\n".join((chunk, str(run), container, token)).encode()
    digest = hmac.new(secret, proved, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def fits(shown: str, secret: bytes, *, chunk: str, run: int, container: str, token: str) -> bool:
    """Whether the ticket shown is the one that was given, in constant time."""
    given = ticket(secret, chunk=chunk, run=run, container=container, token=token)
    return hmac.compare_digest(given.encode(), shown.encode())
