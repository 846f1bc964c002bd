"""Log lines on stderr: an instant, a level, a constant event, then key=value fields."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

from client_container.protocol import instant

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """One line for each record, whatever is in its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line break; a traceback becomes the field `trace`."""
        when = instant(datetime.fromtimestamp(record.created, timezone.utc))
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        tail = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{when} {record.levelname} {record.getMessage()}{tail}"


def set_up_logs(*, verbose: bool = False) -> None:
    """Send the client's log to stderr; `verbose` adds every single chunk."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("client_container").setLevel(logging.DEBUG if verbose else logging.INFO)


def _shown(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(mark in text for mark in " =\"'\\")
    return text if plain else json.dumps(text)
