"""Log lines of the source server: time, level, a constant event, then its fields as key=value."""

from __future__ import annotations

import logging
import time

_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z INFO part is ready part=web`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line with the fields given as `extra` behind it."""
        fields = [f"{key}={_shown(value)}" for key, value in vars(record).items() if key not in _ORDINARY]
        return " ".join([super().formatMessage(record), *fields])


def log_events(level: int = logging.INFO) -> None:
    """Send this process's log to stderr in that form."""
    handler = logging.StreamHandler()
    handler.setFormatter(EventFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    # It warns of every step that is due while the one before still works: on a busy machine that is no news.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    plain = text.isprintable() and not any(character.isspace() for character in text)
    return text if text and plain else repr(text)
