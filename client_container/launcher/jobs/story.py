"""What one execution has said so far: bounded, kept until it is told, told as often as somebody asks.

A client whose connection broke asks again with its token and hears everything from the start: all of stdout, the end
of stderr, and how it ended. It cannot slow the job down: a slow listener misses the middle of stderr, nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from client_container.launcher.line import events
from client_container.launcher.line.events import Event
from client_container.runtime.contract import STDERR_BYTES, STDOUT_BYTES

Emit = Callable[[Event], object]

_PIECE = 64 * 1024
_LOOK_S = 0.5  #: between two looks whether a listener is still there


class Story:
    """Written by the job's thread, heard by the threads of connections. `clock` tells monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._started: Event | None = None
        self._stdout, self._stderr_tail = bytearray(), bytearray()
        self._stderr_total = 0
        self._end: Event | None = None
        self._dropped = False
        self._listeners = 0
        self._unheard_since = clock()

    def start(self, event: Event) -> None:
        """The program is about to run."""
        with self._changed:
            self._started = event
            self._changed.notify_all()

    def add_stdout(self, data: bytes) -> bool:
        """A piece of stdout; False when there is more of it than an answer may have."""
        with self._changed:
            room = STDOUT_BYTES - len(self._stdout)
            self._stdout += data[:room]
            self._changed.notify_all()
            return len(data) <= room

    def add_stderr(self, data: bytes) -> None:
        """A piece of stderr, of which the last 8 KiB are kept."""
        with self._changed:
            self._stderr_total += len(data)
            self._stderr_tail += data
            del self._stderr_tail[:-STDERR_BYTES]
            self._changed.notify_all()

    def take_stdout(self) -> bytes:
        """Take back what was no output of the program's after all."""
        with self._changed:
            said = bytes(self._stdout)
            self._stdout.clear()
            return said

    def finish(self, event: Event) -> None:
        """How it ended: the last event."""
        with self._changed:
            self._end = event
            self._changed.notify_all()

    def drop(self) -> None:
        """There will be no end to tell: the launcher itself leaves. Listeners are left without one."""
        with self._changed:
            self._dropped = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Whether the end is known."""
        return self._end is not None or self._dropped

    @property
    def stdout_bytes(self) -> int:
        """How much of stdout there is."""
        return len(self._stdout)

    def unheard_s(self) -> float:
        """For how many seconds nobody has been listening."""
        with self._changed:
            return 0.0 if self._listeners else self._clock() - self._unheard_since

    def tell(self, emit: Emit, gone: Callable[[], bool]) -> None:
        """Tell everything from the start, until the end is told or the listener is gone.

        What `emit` raises ends the telling and is raised.
        """
        with self._changed:
            self._listeners += 1
        try:
            for event in self._events(gone):
                emit(event)
        finally:
            with self._changed:
                self._listeners -= 1
                self._unheard_since = self._clock()

    def _events(self, gone: Callable[[], bool]) -> Iterator[Event]:
        told_start, told_out, told_err = False, 0, 0
        while not gone():
            with self._changed:
                if not (told_start or self._started is None):
                    told_start = True
                    news = self._started
                elif told_out < len(self._stdout):
                    data = bytes(self._stdout[told_out : told_out + _PIECE])
                    told_out += len(data)
                    news = events.output("stdout", data)
                elif told_err < self._stderr_total:
                    fresh = min(self._stderr_total - told_err, len(self._stderr_tail))
                    told_err = self._stderr_total
                    news = events.output("stderr", bytes(self._stderr_tail[-fresh:]))
                elif self.finished:
                    if self._end is not None:
                        yield self._end
                    return
                else:
                    self._changed.wait(_LOOK_S)
                    continue
            if news is not None:
                yield news
