"""Removals, beside everything else: an engine may take for ever to remove a container or an image."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from client_container.launcher.errors import LauncherError

log = logging.getLogger(__name__)


class Upkeep:
    """One round at a time, in a thread of its own. For one thread that starts rounds."""

    def __init__(self) -> None:
        self.problem: str | None = None  #: of the latest round that is over
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], object]) -> bool:
        """Start a round; False when the last one still runs."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._run, args=(work,), name="upkeep", daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float) -> None:
        """Until the round is over, and no longer than that."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
            self.problem = None
        except (LauncherError, OSError) as error:
            self.problem = str(error)
        except Exception:
            log.exception("upkeep broken")
            self.problem = "The launcher met an error it cannot answer, and did not clear up."
