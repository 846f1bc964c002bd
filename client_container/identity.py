"""Who this container is, made once and kept; and that no second client runs in the same home."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from client_container.durable import write_durably

log = logging.getLogger(__name__)


class HomeTaken(Exception):
    """Another client runs in this home; the message is one sentence for the volunteer."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """UUIDs that outlive the process."""

    container: str
    host: str


def lock_home(home: Path) -> int:
    """Take the home for this process; answers the descriptor that holds the lock until it is closed.

    Raises HomeTaken, or OSError when the folder cannot be written.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise HomeTaken(
            f"Another client already runs in {home}; give this one its own DOCKERCOMP_HOME."
        ) from None
    return descriptor


def load_identity(home: Path) -> Identity:
    """The identity kept in `home`, made and written first when there is none; raises OSError."""
    path = home / "identity.json"
    try:
        kept = json.loads(path.read_bytes())
        return Identity(container=str(uuid.UUID(kept["container"])), host=str(uuid.UUID(kept["host"])))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("identity unreadable, a new one is made", extra={"file": str(path)})
        path.replace(path.with_suffix(".broken"))
    made = Identity(container=str(uuid.uuid4()), host=str(uuid.uuid4()))
    write_durably(path, json.dumps(vars(made)).encode("ascii"))
    return made
