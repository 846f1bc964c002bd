"""The receipt: what the installer put on this machine, written ahead of each change, so that all of it can be undone.

Used by the installer's roles (`python3 receipt.py VERB ...`, standard library only, Python 3.9) and, as a module, by
remove.py beside it. A verb prints `changed` when it changed the receipt.

    add files /a /b [folders /c] [users u] ...   things that are not on the machine yet (those that are were here before
                                                 us and are left out), or are in the receipt already
    note KEY=VALUE ...                           facts: prefix=/opt/dockercomp, docker.installed_by_us=true
    packages-before                              remember which packages are installed, ahead of a package step
    packages-after [docker]                      list what the step added, also under docker if so told
    engine-before                                remember what an engine's installation changes in the network
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATH = Path(os.environ.get("DOCKERCOMP_RECEIPT", "/var/lib/dockercomp/receipt.json"))
LISTS = (
    "files",
    "folders",
    "users",
    "groups",
    "units",
    "mounts",
    "symlinks",
    "packages",
    "subid",
    "images",
    "networks",
)
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def empty() -> dict[str, Any]:
    """A receipt of nothing."""
    docker = {"installed_by_us": False, "packages": [], "repository_files": []}
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"version": 1, "installed": made, "prefix": None, **{name: [] for name in LISTS}, "docker": docker}


def read(path: Path = PATH) -> dict[str, Any] | None:
    """The receipt, complete with every list; None when there is none."""
    try:
        held = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    whole = {**empty(), **held}
    whole["docker"] = {**empty()["docker"], **held.get("docker", {})}
    return whole


def write(receipt: dict[str, Any], path: Path = PATH) -> None:
    """Replace the receipt in one step; only root may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(receipt, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def settle(receipt: dict[str, Any]) -> None:
    """List the packages of a package step that was cut off before it could say what it added."""
    before = receipt.pop("packages_before", None)
    if before is not None:
        added = sorted(set(installed_packages()) - set(before))
        _extend(receipt["packages"], added)
        if receipt.pop("packages_for_docker", False):
            _extend(receipt["docker"]["packages"], added)


def installed_packages() -> list[str]:
    """Names of all packages of the system, by dpkg or rpm."""
    if shutil.which("dpkg-query"):
        said = _said("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n")
        return sorted({line.split()[1] for line in said.splitlines() if line.startswith("i")})
    return sorted(set(_said("rpm", "-qa", "--qf", "%{NAME}\n").split()))


def add(receipt: dict[str, Any], kind: str, names: Sequence[str]) -> None:
    """List those of `names` that are not on the machine yet."""
    for name in names:
        if name not in receipt[kind] and not _is_here(kind, name):
            receipt[kind].append(name)


def note(receipt: dict[str, Any], facts: Sequence[str]) -> None:
    """Set facts given as KEY=VALUE or PART.KEY=VALUE; a value is JSON where it can be read so, else text."""
    for fact in facts:
        key, _, text = fact.partition("=")
        value: Any = text
        with suppress(ValueError):
            value = json.loads(text)
        part, _, inner = key.rpartition(".")
        (receipt[part] if part else receipt)[inner] = value


def packages_before(receipt: dict[str, Any], words: Sequence[str]) -> None:
    """Remember what is installed; an earlier step that was cut off is settled first."""
    settle(receipt)
    receipt["packages_before"] = installed_packages()
    receipt["packages_for_docker"] = "docker" in words


def engine_before(receipt: dict[str, Any], _words: Sequence[str]) -> None:
    """Remember, once, what the network was like before there was an engine."""
    docker = receipt["docker"]
    if "ip_forward_before" not in docker:
        docker["ip_forward_before"] = IP_FORWARD.read_text().strip() if IP_FORWARD.exists() else None
        docker["iptables_before"] = _said("iptables-save") if shutil.which("iptables-save") else None
        docker["nft_tables_before"] = (
            _said("nft", "list", "tables").splitlines() if shutil.which("nft") else []
        )


VERBS: dict[str, Callable[[dict[str, Any], Sequence[str]], None]] = {
    "note": note,
    "packages-before": packages_before,
    "packages-after": lambda receipt, _words: settle(receipt),
    "engine-before": engine_before,
}


def main(arguments: Sequence[str]) -> int:
    if not arguments or (arguments[0] != "add" and arguments[0] not in VERBS):
        print(__doc__, file=sys.stderr)
        return 2
    with _locked():
        before = read()
        receipt = json.loads(json.dumps(before)) if before is not None else empty()
        if arguments[0] == "add":
            for kind, names in _by_kind(arguments[1:]):
                add(receipt, kind, names)
        else:
            VERBS[arguments[0]](receipt, arguments[1:])
        if receipt != before:
            write(receipt)
            print("changed")
    return 0


def _by_kind(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """`files /a /b users u` in groups; the first word must be a kind."""
    kind = ""
    for word in words:
        if word in LISTS:
            kind = word
        else:
            yield kind, [word]


def _is_here(kind: str, name: str) -> bool:
    """Whether the machine has it now; what cannot be asked for here (images, networks) is taken as new."""
    if kind in ("files", "folders", "symlinks"):
        return os.path.lexists(name)
    try:
        if kind == "users":
            pwd.getpwnam(name)
        elif kind == "groups":
            grp.getgrnam(name)
        else:
            return False
    except KeyError:
        return False
    return True


def _extend(names: list[str], more: Sequence[str]) -> None:
    names.extend(name for name in more if name not in names)


def _said(*command: str) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    ).stdout


@contextmanager
def _locked() -> Iterator[None]:
    """One writer at a time: an update and a person's own run may meet."""
    PATH.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with Path("/run/dockercomp-receipt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
