"""Whether this machine can run jobs in sandboxes at all: what is known before anything is set up."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from client_container.launcher.clients.plan import LABEL_KIND
from client_container.launcher.errors import EngineAway, EngineError, LauncherError
from client_container.launcher.jobs.engine import JobEngine
from client_container.launcher.wall.firewall import Family, FirewallMissing


class NotAble(LauncherError):
    """Something is missing that no self-test needs to find out."""


def require_able(image: str, folder: Path) -> None:
    """Raises LauncherError unless there are root, a packet filter, and `folder` is the engine's, too.

    An engine on another machine, or outside of the container in which we are, has other folders than we.
    """
    if os.geteuid() != 0:
        raise NotAble("Jobs in sandboxes need root: each of them gets a user of its own.")
    if Family.find("iptables") is None:
        raise FirewallMissing("There is no iptables on this machine: install the package iptables.")
    engine = JobEngine()
    probe = folder / f"probe-{secrets.token_hex(8)}"
    probe.mkdir(parents=True)
    made = None
    try:
        made = engine.make(_looking(image, probe), f"dockercomp-{probe.name}")
    except EngineAway:
        raise
    except LauncherError as error:
        raise NotAble(
            f"The Docker engine does not see the folder {folder}: is it one of another machine? ({error})"
        ) from error
    finally:
        if made is not None:
            with contextlib.suppress(EngineError):
                engine.remove(made)
        probe.rmdir()


def _looking(image: str, probe: Path) -> dict[str, object]:
    """A container that is never started; it cannot be made where the engine has no such folder."""
    return {
        "Image": image,
        "Cmd": ["true"],
        "Labels": {LABEL_KIND: "probe"},
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [{"Type": "bind", "Source": str(probe), "Target": "/probe", "ReadOnly": True}],
        },
    }
