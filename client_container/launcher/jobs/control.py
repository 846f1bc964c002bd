"""Steering a running job from other threads: end it, freeze it, let it go on."""

from __future__ import annotations

import contextlib
import os
import threading


class Control:
    """Orders for one execution. Each order wakes whoever waits on `descriptor`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._open = True
        self._stop: str | None = None
        self._freeze = False
        self.frozen = False  #: confirmed by the engine; set by the execution

    @property
    def descriptor(self) -> int:
        """Becomes readable with each order, until `heard`."""
        return self._reader

    @property
    def stop_cause(self) -> str | None:
        """Why the job is to end; None when it is not."""
        return self._stop

    @property
    def to_be_frozen(self) -> bool:
        """Whether the job is to stand still."""
        return self._freeze

    def stop(self, cause: str) -> None:
        """End the job for this reason; the first reason counts."""
        with self._lock:
            self._stop = self._stop or cause
            self._wake()

    def freeze(self, wanted: bool) -> None:
        """Have the job stand still, or go on."""
        with self._lock:
            self._freeze = wanted
            self._wake()

    def heard(self) -> None:
        """Forget what woke us."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 1024):
                pass

    def close(self) -> None:
        """Orders have no effect any more."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._reader)
                os.close(self._writer)

    def _wake(self) -> None:
        if self._open:
            with contextlib.suppress(BlockingIOError):
                os.write(self._writer, b"!")
