"""images.json: which images are on this machine because of the launcher, and when each was last used."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from client_container.durable import write_durably

log = logging.getLogger(__name__)

WRITTEN_S = 300.0  #: a last use is written down when it is so much later than what stands there


@dataclass(frozen=True, kw_only=True)
class Brought:
    """An image that we brought here, as images.json has it."""

    reference: str  #: as jobs name it
    id: str | None = None  #: as the engine names it; None: it is on its way, or we ended before it had come
    size: int = 0
    last_used: float = 0.0  #: seconds since the epoch


class Memory:
    """images.json: {"images": [{"reference", "id", "size", "last_used"}]}; whole at any moment."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._known = {one.reference: one for one in _read(path)}
        self._written = {one.reference: one.last_used for one in self._known.values()}

    def find(self, reference: str) -> Brought | None:
        """What is known of an image, or None."""
        with self._lock:
            return self._known.get(reference)

    def all(self) -> list[Brought]:
        """All of them, those used least recently first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda one: (one.last_used, one.reference))

    def put(self, one: Brought) -> None:
        """Remember an image."""
        with self._lock:
            self._known[one.reference] = one
            self._write()

    def use(self, reference: str, when: float) -> None:
        """It is used. Not every use is worth a write: after a crash the order is known to some minutes."""
        with self._lock:
            known = self._known.get(reference)
            if known is None or when <= known.last_used:
                return
            self._known[reference] = replace(known, last_used=when)
            if when - self._written.get(reference, 0.0) >= WRITTEN_S:
                self._write()

    def forget(self, reference: str) -> None:
        """It is not here any more, or not ours."""
        with self._lock:
            if self._known.pop(reference, None) is not None:
                self._write()

    def _write(self) -> None:
        self._written = {one.reference: one.last_used for one in self._known.values()}
        whole = {"images": [asdict(one) for one in self._known.values()]}
        write_durably(self._path, json.dumps(whole, indent=1).encode())


def _read(path: Path) -> list[Brought]:
    try:
        entries = json.loads(path.read_text())["images"]
        return [Brought(**{name: one[name] for name in Brought.__dataclass_fields__}) for one in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Better to leave images behind than not to start: they are removed by nobody then, and that is said.
        log.warning("images.json cannot be read: images are not ours any more", extra={"reason": str(error)})
        return []
