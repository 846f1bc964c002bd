"""The MongoClient of this process, made after any fork, and the primary's clock."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from source_server.stores.gate import Document, translated

REMEASURE_S = 60.0  #: how long a measured offset to the primary's clock is used


def connect(uri: str, database: str, *, application: str) -> Database[Document]:
    """The database at `uri`. Connects lazily; a call that finds no primary within 5 s is DatabaseUnavailable."""
    client: MongoClient[Document] = MongoClient(
        uri,
        appname=application,
        tz_aware=True,
        retryWrites=True,
        serverSelectionTimeoutMS=5000,
        connectTimeoutMS=5000,
        socketTimeoutMS=30000,
        maxPoolSize=64,
    )
    return client[database]


class PrimaryClock:
    """`now()` is the primary's time: its offset to our monotonic clock is measured anew every minute."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._offset = timedelta()
        self._measured: float | None = None

    def now(self) -> datetime:
        """The present instant, aware, in UTC; raises DatabaseUnavailable if it was never measured."""
        with self._lock:
            if self._measured is None or time.monotonic() - self._measured > REMEASURE_S:
                self._measure()
            return _EPOCH + timedelta(seconds=time.monotonic()) + self._offset

    def _measure(self) -> None:
        before = time.monotonic()
        with translated():
            admin, options = self._database.client.admin, self._database.codec_options
            answer: dict[str, Any] = admin.command("hello", codec_options=options)
        after = time.monotonic()
        local: datetime = answer["localTime"]
        # The answer was made somewhere between: the middle errs by half the round trip at most.
        self._offset = local - _EPOCH - timedelta(seconds=(before + after) / 2)
        self._measured = after


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
