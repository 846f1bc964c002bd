"""What we have in the Docker engine, and the engine itself where we brought it and nobody else uses it."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hands import Hands
from remove_files import mounted_below, remove_files, remove_folder, systemd_runs
from remove_rules import remove_docker_rules

HOST_LABEL = "dockercomp.host"
INSTANCE_LABEL = "dockercomp.instance"
SERVICES = ("docker.socket", "docker.service", "containerd.service")
OWN_NETWORKS = {"bridge", "host", "none"}  #: every engine has them
#: What an engine writes. In /etc/docker a volunteer may have settings, which stay.
DATA = ("/var/lib/docker", "/var/lib/containerd", "/run/docker", "/run/containerd", "/opt/containerd")
LEAVINGS = ("/run/docker.sock", "/run/docker.pid", "/etc/docker/key.json")


def engine_answers(hands: Hands) -> bool:
    """Whether there is an engine to ask; one that merely is not running is started."""
    if shutil.which("docker") is None:
        return False
    if hands.look("docker", "version", "--format", "{{.Server.Version}}", limit_s=20):
        return True
    if not systemd_runs() or hands.dry:
        return False
    return any(_started(hands) for _ in range(2))


def _started(hands: Hands) -> bool:
    """Start the engine, and say whether it answers; one that runs and is silent is left alone: it may have work."""
    state = hands.heard("systemctl", "is-active", "docker.service").strip()
    if state in ("inactive", "deactivating", "failed"):
        # A removal that was cut off may have left an engine that is still stopping, whose socket cannot be opened
        # again before it is gone; and after a few starts within a minute systemd refuses until it is told to forget.
        hands.act("systemctl", "stop", "docker.socket", "docker.service", limit_s=120)
        hands.act("systemctl", "reset-failed", "docker.socket", "docker.service", "containerd.service")
    hands.act("systemctl", "start", "docker.service", limit_s=90)
    return bool(hands.look("docker", "version", "--format", "{{.Server.Version}}", limit_s=20))


def own_filters(home: Path, instances: Sequence[str]) -> list[str]:
    """Filters that find what this machine's launchers made: by the host's id, else by the instances' names."""
    ids = []
    for path in sorted({*home.glob("launcher/host.json"), *home.glob("instances/*/launcher/host.json")}):
        try:
            ids.append(str(json.loads(path.read_text())["id"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    by_host = [f"label={HOST_LABEL}={one}" for one in ids]
    return by_host or [f"label={INSTANCE_LABEL}={name}" for name in instances]


def own_images(receipt: dict[str, Any], home: Path) -> list[str]:
    """Ids of the images that we loaded: the client's, and those that the launchers note."""
    found = list(receipt["images"])
    for path in sorted({*home.glob("launcher/images.json"), *home.glob("instances/*/launcher/images.json")}):
        try:
            brought = json.loads(path.read_text())["images"]
            found += [one.get("id") or one["reference"] for one in brought]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return list(dict.fromkeys(found))


def remove_objects(
    hands: Hands, filters: Sequence[str], networks: Iterable[str], images: Iterable[str]
) -> None:
    """Remove our containers, networks, volumes and images, and nothing that somebody else uses."""
    for one in filters:
        _remove_each(
            hands, "Containers", _ids(hands, "ps", "-aq", "--no-trunc", "--filter", one), "rm", "-f", "-v"
        )
        found = _ids(hands, "network", "ls", "-q", "--filter", one)
        _remove_each(hands, "Networks", found, "network", "rm")
        _remove_each(hands, "Volumes", _ids(hands, "volume", "ls", "-q", "--filter", one), "volume", "rm")
    for name in networks:
        label = hands.look(
            "docker", "network", "inspect", "--format", f'{{{{index .Labels "{INSTANCE_LABEL}"}}}}', name
        )
        if label is not None and label.strip():
            _remove_each(hands, "Networks", [name], "network", "rm")
    for image in images:
        _remove_image(hands, image)


def _ids(hands: Hands, *command: str) -> list[str]:
    return (hands.look("docker", *command) or "").split()


def _remove_each(hands: Hands, kind: str, names: Sequence[str], *verb: str) -> None:
    for name in names:
        complaint = hands.act("docker", *verb, name)
        short = name[:12] if re.fullmatch("[0-9a-f]{64}", name) else name
        if complaint:
            hands.fail(f"{kind}: {short} could not be removed: {complaint}.")
        else:
            hands.did(kind, short)


def _remove_image(hands: Hands, image: str) -> None:
    tags = hands.look("docker", "image", "inspect", "--format", '{{join .RepoTags " "}}', image)
    if tags is None:
        return
    users = _ids(hands, "ps", "-aq", "--filter", f"ancestor={image}")
    if users:
        hands.leave(f"The image {image[:19]} is used by {len(users)} containers that are not ours.")
    elif tags.strip():
        hands.leave(f"The image {image[:19]} has a name that is not ours: {tags.strip()}.")
    else:
        complaint = hands.act("docker", "image", "rm", "--force", image)
        if complaint:
            hands.leave(f"The image {image[:19]} is needed by others: {complaint}.")
        else:
            hands.did("Images", image[:19])


def foreign_things(hands: Hands, data: Path = Path("/var/lib/docker")) -> list[str]:
    """What is in the engine that is not ours, after ours is gone; something is said when nobody can tell."""
    if not engine_answers(hands):
        never_ran = not data.is_dir() or not any(data.iterdir())
        return [] if never_ran or hands.dry else ["what an engine that does not start holds"]
    found = {
        "containers": _ids(hands, "ps", "-aq"),
        "images": _ids(hands, "image", "ls", "-aq"),
        "volumes": _ids(hands, "volume", "ls", "-q"),
        "networks": [
            name for name in _ids(hands, "network", "ls", "--format", "{{.Name}}") if name not in OWN_NETWORKS
        ],
    }
    # In a dry run ours are still there.
    gone = {kind: len(hands.done.get(kind.capitalize(), [])) if hands.dry else 0 for kind in found}
    counted = {kind: len(names) - gone[kind] for kind, names in found.items()}
    return [f"{count} {kind}" for kind, count in counted.items() if count > 0]


def remove_engine(hands: Hands, docker: dict[str, Any]) -> list[str]:
    """Stop Docker and take away all that it made, but for its packages, which are returned for removal."""
    _stop_services(hands)
    for target in reversed(mounted_below(Path("/proc/self/mountinfo").read_text(), DATA)):
        if target not in DATA:  # a volume of somebody's that the data lies on stays where it is
            hands.act("umount", "--lazy", target)
    remove_docker_rules(hands, docker)
    for folder in DATA:
        _empty(hands, folder)
    remove_files(hands, LEAVINGS)
    remove_folder(hands, "/etc/docker", ())
    before = docker.get("ip_forward_before")
    if before == "0" and not hands.dry:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")
        hands.did("Settings", "ip_forward as it was")
    return list(docker["packages"])


def remove_engine_leavings(hands: Hands) -> None:
    """What is left once the packages are gone: their group, and folders that they leave."""
    for folder in (*DATA, "/etc/docker", "/etc/containerd", "/etc/cni/net.d", "/etc/cni"):
        _empty(hands, folder)
    try:
        members = [name for name in grp.getgrnam("docker").gr_mem if name != "dockercomp"]
    except KeyError:
        return
    if members:
        hands.leave(f"The group docker has members: {', '.join(members)}.")
    elif not hands.act("groupdel", "docker"):
        hands.did("Groups", "docker")


def _stop_services(hands: Hands) -> None:
    if systemd_runs():
        for service in SERVICES:
            if hands.look("systemctl", "cat", service) is not None:
                hands.act("systemctl", "disable", "--now", service, limit_s=120)
        hands.did("Units", "docker, containerd")


def _empty(hands: Hands, folder: str) -> None:
    """Remove a folder that only the engine writes to; where it is a mount, what is in it."""
    if not os.path.isdir(folder) or os.path.islink(folder):
        return
    if hands.dry:
        hands.did("Folders", folder)
        return
    remove_folder(hands, folder, os.listdir(folder) if folder in DATA else ())


def by_hand(docker: dict[str, Any]) -> str:
    """How to remove Docker without us."""
    packages = " ".join(sorted(docker["packages"])) or "docker.io"
    manager = "apt-get purge" if shutil.which("apt-get") else "dnf remove"
    files = " ".join(["/var/lib/docker", "/var/lib/containerd", "/etc/docker", *docker["repository_files"]])
    return f"{manager} {packages}; rm -r {files}; groupdel docker"
