"""How this client stands with its server, told to whoever looks after its home: the small file state.json."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from client_container.connection import ServerConnection
from client_container.failures import LifeEnded, Refused, ServerUnavailable
from client_container.protocol import instant

log = logging.getLogger(__name__)

NAME = "state.json"


def utc_now() -> datetime:
    """The time by the machine's clock."""
    return datetime.now(timezone.utc)


class StateFile:
    """The file, rewritten whole when something in it changes. Not synced: it is of no use after a crash."""

    def __init__(self, home: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._path, self._now = home / NAME, now
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {
            "container": None,  #: this container's id on the server
            "registered": False,
            "registered_at": None,  #: when this life began
            "last_beat": None,  #: when the server last answered a heartbeat, or the registration
            "reachable": None,  #: whether the last call was answered; None before the first
            "problem": None,  #: one sentence about the last call that failed, until one succeeds
            "left": False,  #: whether it took leave of the server
        }

    def note(self, **facts: Any) -> None:
        """Change facts; the file is written when that changes anything. A disk that is full changes nothing."""
        with self._lock:
            if facts.items() <= self._facts.items():
                return
            self._facts.update(facts)
            text = json.dumps({**self._facts, "at": instant(self._now())})
            partial = self._path.with_name(NAME + ".partial")
            try:
                partial.write_text(text)
                partial.replace(self._path)
            except OSError as error:
                log.warning("state not written", extra={"reason": error.strerror})

    def instant(self) -> str:
        """Now, as it is written."""
        return instant(self._now())


class WatchedConnection(ServerConnection):
    """A connection that notes how its calls end."""

    def __init__(self, server: str, account_key: str, state: StateFile, **timeouts: float) -> None:
        super().__init__(server, account_key, **timeouts)
        self._state = state

    def _call(self, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        try:
            answer = super()._call(method, path, *arguments, **options)
        except LifeEnded as error:
            self._state.note(registered=False, reachable=True, problem=str(error))
            raise
        except ServerUnavailable as error:
            self._state.note(reachable=False, problem=str(error))
            raise
        except Refused as error:
            self._state.note(reachable=True, problem=error.sentence)
            raise
        self._state.note(reachable=True, problem=None, **self._news(method, path, answer.message))
        return answer

    def _news(self, method: str, path: str, message: Any) -> dict[str, Any]:
        """What a good answer says about our standing."""
        if method == "DELETE" and path.startswith("/containers/"):
            return {"registered": False, "left": True}
        now = self._state.instant()
        if (method, path) == ("POST", "/containers"):
            container = message.get("id") if isinstance(message, dict) else None
            return {
                "container": container,
                "registered": True,
                "registered_at": now,
                "last_beat": now,
                "left": False,
            }
        return {"last_beat": now} if path == "/heartbeat" else {}
