"""The volunteer's pause, kept over restarts of launcher and machine."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from client_container.durable import write_durably
from client_container.launcher.policy.governor import Pause


def write_pause(path: Path, pause: Pause | None) -> None:
    """Keep a pause, or forget it; raises OSError."""
    if pause is None:
        path.unlink(missing_ok=True)
        return
    until = pause.until.isoformat() if pause.until else None
    write_durably(path, json.dumps({"until": until}).encode())


def read_pause(path: Path) -> Pause | None:
    """The pause that was kept; None when there is none."""
    try:
        until = json.loads(path.read_text())["until"]
        return Pause(until=datetime.fromisoformat(until) if until else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Pause()  # somebody paused: better not to compute than to guess until when
