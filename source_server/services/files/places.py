"""How many large files may be on their way at once: each holds a thread, and the others are for heartbeats."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from source_server.domain.refusal import Unavailable


class Places:
    """Places for those who read, or for those who write, in this process."""

    def __init__(self, most: int, *, each: int | None = None) -> None:
        """`most` at once; of one account `each`, or as many as there are."""
        self._most, self._each = most, most if each is None else each
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, account: str = "") -> Iterator[None]:
        """Hold one; raises Unavailable when there is none left, or none for this account."""
        with self._lock:
            if self._held.total() >= self._most:
                raise Unavailable("Many large files are on their way just now; send the same request again.")
            if self._held[account] >= self._each:
                raise Unavailable(
                    f"This account has {self._each} files on their way just now; send the same request again."
                )
            self._held[account] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[account] -= 1
                self._held += Counter()  # drops those who hold nothing any more
