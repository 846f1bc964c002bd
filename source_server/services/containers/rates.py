"""How fast containers bring accepted results: summed in each process, written every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from source_server.domain.refusal import Unavailable
from source_server.stores.database import Stores

log = logging.getLogger(__name__)

FLUSH_S = 5.0
MOST = 5000  #: containers that wait to be written; more means that the database has not answered for long


class Rates:
    """Counts accepted results; one for each process. A count that a crash loses makes a container seem slower."""

    def __init__(self, stores: Stores, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._accepted: Counter[str] = Counter()
        self._flush_at = monotonic() + FLUSH_S

    def accepted(self, containers: Iterable[str]) -> None:
        """One more result of each of these containers was accepted, or agreed with one that was. Never raises."""
        with self._lock:
            self._accepted.update(containers)
            if self._monotonic() < self._flush_at and len(self._accepted) < MOST:
                return
            self._flush_at = self._monotonic() + FLUSH_S
            due, self._accepted = self._accepted, Counter()
        try:
            self._stores.containers.add_accepted(due, self._stores.clock.now())
        except Unavailable as error:
            log.warning("rates not written", extra={"reason": str(error)})
