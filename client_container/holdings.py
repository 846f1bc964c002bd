"""What this container holds of the server's: claim tokens, the chunks known under each, and which one runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from client_container.protocol import Chunk
from client_container.runtime import Halt


@dataclass
class _Token:
    """One claim. A chunk counts until its result is stored (or refused), it is dropped, or it is lost."""

    answered: bool = False
    counted: set[str] = field(default_factory=set)
    #: So that a late repetition of the claim starts none again.
    settled: set[str] = field(default_factory=set)


class Holdings:
    """Shared by the loop, which claims and executes, and the courier, which beats and delivers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}
        self._queue: deque[Chunk] = deque()
        self._again: deque[str] = deque()
        self._running: tuple[Chunk, Halt] | None = None
        self._closed = False

    def promise(self, token: str) -> None:
        """A token was made: it is held from now on, before the server has heard of it."""
        with self._lock:
            self._tokens[token] = _Token()

    def holds(self, token: str) -> bool:
        """Whether the token is still of any use."""
        with self._lock:
            return token in self._tokens

    def give_up(self, token: str) -> None:
        """A claim came to nothing."""
        with self._lock:
            self._tokens.pop(token, None)

    def claimed(self, token: str, chunks: Iterable[Chunk]) -> int:
        """The server's answer to a claim: what it lists is held, what it no longer lists is lost.

        Answers how many chunks are new. The answer to a token of an ended life changes nothing.
        """
        listed = {chunk.id: chunk for chunk in chunks}
        with self._lock:
            state = self._tokens.get(token)
            if state is None:
                return 0
            state.answered = True
            self._unqueue(state.counted - listed.keys(), token)
            state.counted &= listed.keys()
            fresh = [c for c in listed.values() if c.id not in state.counted and c.id not in state.settled]
            state.counted.update(chunk.id for chunk in fresh)
            self._queue.extend(fresh)
            self._tidy(token)
            return len(fresh)

    def start(self) -> tuple[Chunk, Halt] | None:
        """Take the next chunk to execute, with the handle that ends its execution; None without one."""
        with self._lock:
            if self._closed or not self._queue:
                return None
            self._running = (self._queue.popleft(), Halt())
            return self._running

    def ended(self, chunk: Chunk, *, kept: bool) -> None:
        """The execution is over. Without a kept result the chunk does not count any longer."""
        with self._lock:
            self._running = None
            if not kept:
                self._discount(chunk.token, chunk.id)

    def give_back(self, image: str | None = None) -> list[str]:
        """Take back all chunks that have not been started, or those of jobs with this image; answers their ids."""
        with self._lock:
            back = [chunk for chunk in self._queue if image is None or chunk.job.image == image]
            self._queue = deque(chunk for chunk in self._queue if chunk not in back)
            for chunk in back:
                self._discount(chunk.token, chunk.id)
            return [chunk.id for chunk in back]

    def settled(self, token: str, chunk: str) -> None:
        """The server has this chunk's result, or refused it for good."""
        with self._lock:
            self._discount(token, chunk)

    def drop(self, chunks: Iterable[str]) -> None:
        """Forget these chunks, and stop the one that runs."""
        unwanted = set(chunks)
        with self._lock:
            if self._running and self._running[0].id in unwanted:
                self._running[1].set()
            self._discount_everywhere(unwanted)

    def lose(self, chunks: Iterable[str]) -> None:
        """Start none of these; what runs may finish."""
        with self._lock:
            self._discount_everywhere(set(chunks))

    def ask_again(self, tokens: Iterable[str], told: Mapping[str, int]) -> None:
        """Have these tokens claimed again, unless what the server was `told` is out of date by now."""
        with self._lock:
            for token in tokens:
                state = self._tokens.get(token)
                up_to_date = state and state.answered and len(state.counted) == told.get(token)
                if up_to_date and token not in self._again:
                    self._again.append(token)

    def next_again(self) -> tuple[str, int] | None:
        """A token to claim again and the number of chunks known under it; None without one."""
        with self._lock:
            while self._again:
                token = self._again.popleft()
                if token in self._tokens:
                    return token, len(self._tokens[token].counted)
            return None

    def told(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """What a heartbeat says: the count under each token, and the chunk that runs (unless it is lost)."""
        with self._lock:
            held = {token: len(state.counted) for token, state in self._tokens.items()}
            running = self._running[0] if self._running else None
            counts = running and running.id in self._tokens.get(running.token, _Token()).counted
            return held, (running.id,) if running and counts else ()

    def end_life(self) -> None:
        """The server gave everything back: forget what has not started; what runs may finish."""
        with self._lock:
            self._tokens.clear()
            self._queue.clear()
            self._again.clear()

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be started."""
        return self._closed

    def close(self) -> None:
        """Start nothing more and stop what runs."""
        with self._lock:
            self._closed = True
            if self._running:
                self._running[1].set()

    def _discount_everywhere(self, chunks: set[str]) -> None:
        for token in list(self._tokens):
            for chunk in chunks & self._tokens[token].counted:
                self._unqueue({chunk}, token)
                self._tokens[token].counted.discard(chunk)
            self._tidy(token)

    def _discount(self, token: str, chunk: str) -> None:
        state = self._tokens.get(token)
        if state:
            state.counted.discard(chunk)
            state.settled.add(chunk)
            self._tidy(token)

    def _unqueue(self, chunks: set[str], token: str) -> None:
        if chunks:
            self._queue = deque(c for c in self._queue if c.id not in chunks or c.token != token)

    def _tidy(self, token: str) -> None:
        """An answered token with no chunk left is not held any longer."""
        state = self._tokens[token]
        if state.answered and not state.counted:
            del self._tokens[token]
