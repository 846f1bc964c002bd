"""Where the launcher's log goes."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from client_container.logs import KeyValueFormatter


def log_to(path: Path | None) -> None:
    """Log to a file of at most 1 MB and its predecessor, or to stderr."""
    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=2**20, backupCount=1)
    handler.setFormatter(KeyValueFormatter())
    own = logging.getLogger("client_container")
    own.handlers = [handler]
    own.setLevel(logging.INFO)
