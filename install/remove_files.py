"""Files, folders, mounts, units, users and reserved ids that the receipt lists, taken away."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hands import Hands

SUBID_FILES = ("/etc/subuid", "/etc/subgid")
WAIT_S = 10.0  #: longest that a busy mount or user is waited for
# What lies at the top of each of our folders. Anything else there is somebody else's.
OWN_NAMES = {
    "prefix": "ansible bin launcher payload client-image.tar docker.asc.unchecked pubring.kbx vars.json",
    "/etc/dockercomp": "account.key bundle.pem ca.pem engine-ca.pem engine.env enrolment.nonce instances launcher.json"
    " policy.toml release.pub",
    "home": "instances launcher packages-before.txt pause receipt.json slots slots.img update",
}
BESIDE = (
    ".new",
    ".old",
    ".partial",
    "~",
    ".bak",
)  #: what our own steps add to such a name while they are at it


def systemd_runs() -> bool:
    """Whether this machine was started by systemd."""
    return Path("/run/systemd/system").is_dir()


def remove_units(hands: Hands, units: Sequence[str], folder: Path = Path("/etc/systemd/system")) -> None:
    """Stop and disable the units and all their instances; their files go with the others."""
    if systemd_runs():
        listed = (
            hands.look("systemctl", "list-units", "--all", "--plain", "--no-legend", "dockercomp-*@*") or ""
        )
        instances = [line.split()[0] for line in listed.splitlines() if line.split()]
        # Services first: a timer's service, or a mount, may be in use by them.
        for unit in sorted({*units, *instances}, key=lambda name: (name.endswith(".mount"), name)):
            known = (folder / unit).exists() or "@" in unit
            if not known:
                continue
            complaint = hands.act("systemctl", "disable", "--now", unit, limit_s=120)
            if complaint:
                hands.fail(f"The unit {unit} could not be stopped: {complaint}.")
            else:
                hands.did("Units", unit)
    stamps = [Path("/var/lib/systemd/timers") / f"stamp-{unit}" for unit in units if unit.endswith(".timer")]
    remove_files(hands, [str(stamp) for stamp in stamps])


def forget_units(hands: Hands, units: Sequence[str]) -> None:
    """Let systemd notice that the units' files are gone."""
    if units and systemd_runs():
        hands.act("systemctl", "daemon-reload")
        hands.act("systemctl", "reset-failed", *units)


def remove_mounts(hands: Hands, mounts: Sequence[str], table: Path = Path("/proc/self/mountinfo")) -> None:
    """Unmount what lies on these folders, the deepest first; what is busy is detached."""
    for target in reversed(mounted_below(table.read_text(), mounts)):
        complaint = _patiently(lambda target=target: hands.act("umount", target))
        if complaint and hands.act("umount", "--lazy", target):
            hands.fail(f"{target} could not be unmounted: {complaint}.")
        else:
            hands.did("Mounts", target)


def mounted_below(mountinfo: str, folders: Sequence[str]) -> list[str]:
    """The mount points at or below these folders, in the order in which they were mounted. Pure."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return [
        point
        for point in points
        if any(point == folder or point.startswith(folder + "/") for folder in folders)
    ]


def remove_cgroups(hands: Hands, name: str = "dockercomp", root: Path = Path("/sys/fs/cgroup")) -> None:
    """Remove the empty cgroups of jobs."""
    if systemd_runs():
        hands.act("systemctl", "stop", f"{name}.slice")
    parents = {root, *(one for one in root.glob("*") if one.is_dir() and not one.is_symlink())}
    for top in sorted(parent / name for parent in parents if (parent / name).is_dir()):
        for folder in [*sorted((one for one in top.rglob("*") if one.is_dir()), reverse=True), top]:
            if not hands.dry:
                try:
                    folder.rmdir()
                except OSError as error:
                    hands.fail(f"The cgroup {folder} is in use: {error.strerror}.")
                    break
        else:
            hands.did("Cgroups", str(top))


def remove_files(hands: Hands, files: Iterable[str]) -> None:
    """Remove files; what is no file any more is left."""
    for name in files:
        path = Path(name)
        if not os.path.lexists(name):
            continue
        if name in SUBID_FILES and path.stat().st_size:
            continue  # others have lines in it by now
        if path.is_dir() and not path.is_symlink():
            hands.leave(f"{name} was a file of ours and is a folder now.")
            continue
        if not hands.dry:
            path.unlink()
        hands.did("Files", name)


def remove_symlinks(hands: Hands, symlinks: Iterable[str], prefix: str) -> None:
    """Remove links that still lead to our programs."""
    for name in symlinks:
        if not os.path.lexists(name):
            continue
        if not os.path.islink(name) or not os.readlink(name).startswith(f"{prefix}/"):
            hands.leave(f"{name} does not lead to {prefix} any more.")
            continue
        if not hands.dry:
            os.unlink(name)
        hands.did("Files", name)


def foreign_names(names: Iterable[str], own: Iterable[str]) -> list[str]:
    """Those names in a folder of ours that none of our steps made. Pure."""
    known = {name + suffix for name in own for suffix in ("", *BESIDE)}
    return sorted(name for name in names if name not in known)


def remove_folder(
    hands: Hands, folder: str, own: Iterable[str], keep: Sequence[str] = (), *, itself: bool = True
) -> None:
    """Remove what is ours in a folder, and the folder `itself` if nothing else is in it. `keep` stays for now.

    Nothing outside it is touched: links are removed, not followed, and no other file system is entered.
    """
    path = Path(folder)
    if path.is_symlink() or not path.is_dir():
        return
    foreign = foreign_names(set(os.listdir(path)) - set(keep), own)
    for name in sorted(set(os.listdir(path)) - set(foreign) - set(keep)):
        _remove_tree(hands, path / name)
    if foreign or not itself:
        if itself:
            hands.leave(f"{folder} holds what is not ours: {', '.join(foreign[:10])}.")
    elif hands.dry:
        hands.did("Folders", folder)
    elif not os.listdir(path):
        if not os.path.ismount(path):  # a mount of somebody's stays, empty
            path.rmdir()
        hands.did("Folders", folder)


def _remove_tree(hands: Hands, path: Path) -> None:
    if hands.dry:
        return
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        path.unlink()
    elif facts.st_dev != path.parent.lstat().st_dev:
        hands.fail(f"{path} is still mounted.")
    else:
        # It does not follow links, by the race-free way that every Linux has.
        problems: list[str] = []
        shutil.rmtree(path, onerror=lambda _call, name, error: problems.append(f"{name} ({error[1]})"))
        if problems:
            hands.fail(f"Not everything in {path} could be removed: {problems[0]}.")


def remove_subids(hands: Hands, lines: Sequence[str], files: Sequence[str] = SUBID_FILES) -> None:
    """Take exactly these lines out of /etc/subuid and /etc/subgid."""
    for name in files:
        path = Path(name)
        if not path.exists():
            continue
        before = path.read_text().splitlines(keepends=True)
        after = [line for line in before if line.strip() not in lines]
        if after == before:
            continue
        if not hands.dry:
            facts = path.stat()
            partial = path.with_name(path.name + ".dockercomp")
            partial.write_text("".join(after))
            partial.chmod(stat.S_IMODE(facts.st_mode))
            os.chown(partial, facts.st_uid, facts.st_gid)
            partial.replace(path)
        hands.did("Reserved ids", name)


def remove_users(hands: Hands, users: Iterable[str], groups: Iterable[str]) -> None:
    """Remove users and groups; a user whose processes do not end stays."""
    for user in users:
        if _is_there(pwd.getpwnam, user):
            complaint = _patiently(lambda user=user: hands.act("userdel", user))
            if complaint:
                hands.fail(f"The user {user} could not be removed: {complaint}.")
            else:
                hands.did("Users", user)
    for group in groups:
        if not _is_there(grp.getgrnam, group):
            continue
        members = grp.getgrnam(group).gr_mem
        if members:
            hands.leave(f"The group {group} has members: {', '.join(members)}.")
            continue
        complaint = hands.act("groupdel", group)
        # With its user, the user's own group may be gone by now.
        if complaint and _is_there(grp.getgrnam, group):
            hands.fail(f"The group {group} could not be removed: {complaint}.")
        else:
            hands.did("Groups", group)


def _is_there(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def _patiently(attempt: Callable[[], str]) -> str:
    """Attempt until there is no complaint, for a while; the last complaint."""
    ends = time.monotonic() + WAIT_S
    while True:
        complaint = attempt()
        if not complaint or time.monotonic() > ends:
            return complaint
        time.sleep(0.5)
