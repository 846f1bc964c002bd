"""How many jobs the other instances on this machine run: each writes its number into a folder that all share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from client_container.launcher.service.installation import Installation

AGAIN_S = 5.0  #: a number that did not change is written again after this long
STALE_S = 3 * AGAIN_S  #: a launcher that wrote nothing for so long does not run, and its jobs are ending


class HostShare:
    """One instance's view. `now` tells epoch seconds, as files' times do."""

    def __init__(self, installation: Installation, *, now: Callable[[], float] = time.time) -> None:
        home = installation.home
        top = home.parent.parent if home.parent.name == "instances" else home
        self._folder, self._own, self._now = top / "launcher" / "running", installation.instance, now
        self._published, self._published_at = -1, float("-inf")

    def publish(self, running: int) -> None:
        """Say how many jobs run here; a full disk only makes the others a little too generous."""
        if running == self._published and self._now() - self._published_at < AGAIN_S:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / self._own).write_text(f"{running}\n")
            self._published, self._published_at = running, self._now()

    def others(self) -> int:
        """How many jobs the other instances run."""
        total = 0
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError, ValueError):
                if path.name != self._own and self._now() - path.stat().st_mtime < STALE_S:
                    total += int(path.read_text())
        return total
