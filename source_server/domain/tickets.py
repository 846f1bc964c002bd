"""Tickets: the server's proof that a container was given a chunk. They never expire."""

from __future__ import annotations

import base64
import hashlib
import hmac


def ticket(secret: bytes, *, chunk: str, run: int, container: str, token: str, variant: str = "") -> str:
    """The ticket for this chunk, run, container and claim token: 43 characters of URL-safe base64.

    Where the attempt is to be made in a variant of the job, its name and a dot stand before them: to which variant an
    answer is put down is the server's word, however late the answer comes.
    """
    proved = "\n".join((chunk, str(run), container, token, *([variant] if variant else []))).encode()
    digest = hmac.new(secret, proved, hashlib.sha256).digest()
    proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return f"{variant}.{proof}" if variant else proof


def variant_of(shown: str) -> str:
    """The job's variant that a ticket is for; empty where the job has none."""
    return shown.rpartition(".")[0]


def fits(shown: str, secret: bytes, *, chunk: str, run: int, container: str, token: str) -> bool:
    """Whether the ticket shown is the one that was given, in constant time."""
    variant = variant_of(shown)
    given = ticket(secret, chunk=chunk, run=run, container=container, token=token, variant=variant)
    return hmac.compare_digest(given.encode(), shown.encode())
