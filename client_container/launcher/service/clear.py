"""What a launcher leaves behind when it is killed, and nobody starts it again: found by its labels, and removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from client_container.launcher.clients.engine import ClientEngine
from client_container.launcher.clients.keeper import remove_all
from client_container.launcher.clients.plan import own_labels
from client_container.launcher.jobs.cgroups import remove_parents
from client_container.launcher.service.installation import Installation, read_installation
from client_container.launcher.service.own_disk import unmount
from client_container.launcher.state import StateFolder
from client_container.launcher.wall.network import Wall


def clear(etc: Path) -> int:
    """Remove the containers, network, packet filter and mount of the instance in `etc`; how many containers it were.

    Nothing is looked for where the last launcher ended well. The clients' spools stay, with answers that were not
    delivered. Raises AlreadyRunning while a launcher runs, EngineAway, EngineError, FirewallError.
    """
    installation = read_installation(etc)
    state = StateFolder(installation.launcher_folder, installation.instance)
    host_id = state.find_host_id()
    if host_id is None or not state.unfinished.exists():
        return 0
    with state.running():
        engine, labels = ClientEngine(), own_labels(installation.instance, host_id)
        removed = remove_all(engine, engine.find(labels))
        Wall(
            engine=engine, instance=installation.instance, labels=labels, server=installation.server
        ).remove()
        clear_machine(installation)
        state.unfinished.unlink(missing_ok=True)
    return removed


def clear_machine(installation: Installation) -> None:
    """What no uninstaller takes back where there was no installer: mount, control socket, empty groups of jobs."""
    with contextlib.suppress(OSError):
        installation.control.unlink(missing_ok=True)
    if installation.makes_disk:
        slots = installation.home / "slots"
        if os.path.ismount(slots):
            unmount(slots)
        remove_parents()
