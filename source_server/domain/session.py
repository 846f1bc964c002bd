"""Sessions of pages: who is signed in and until when, signed with the server's secret. Nothing is stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

LIFE = timedelta(hours=12)
MOST = 200  #: letters of a session


@dataclass(frozen=True, kw_only=True)
class Session:
    """An account, until an instant. `key`: which of its keys was shown; a new one ends the session."""

    account: str
    key: str
    ends: datetime


def fingerprint(secret: bytes, key_hash: str) -> str:
    """What a session keeps of the key that opened it; tells nothing about the key."""
    return _signed(secret, b"session-key", key_hash)[:16]


def seal(secret: bytes, session: Session) -> str:
    """The session as the text of a cookie."""
    text = f"{session.account}.{session.key}.{int(session.ends.timestamp())}"
    return f"{text}.{_signed(secret, b'session', text)}"


def unseal(secret: bytes, text: str, now: datetime) -> Session | None:
    """The session that this text is; None for one that has ended, or that this server did not make."""
    said, _, signature = text.rpartition(".")
    if (
        len(text) > MOST
        or not text.isascii()
        or not hmac.compare_digest(_signed(secret, b"session", said), signature)
    ):
        return None
    account, key, ends = said.split(".")
    session = Session(account=account, key=key, ends=datetime.fromtimestamp(int(ends), timezone.utc))
    return session if now < session.ends else None


def csrf_token(secret: bytes, session: str) -> str:
    """What a page shows, beside the cookie, with everything that changes something."""
    return _signed(secret, b"csrf", session)


def is_csrf_token(secret: bytes, session: str, shown: str) -> bool:
    """Whether this is the session's token."""
    try:
        return hmac.compare_digest(csrf_token(secret, session).encode(), shown.encode())
    except (UnicodeEncodeError, binascii.Error):
        return False


def _signed(secret: bytes, purpose: bytes, text: str) -> str:
    # A key of its own for each purpose: what is signed for one means nothing for another.
    key = hmac.digest(secret, b"dockercomp page " + purpose, "sha256")
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
