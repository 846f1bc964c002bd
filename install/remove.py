"""Takes away all that the installer put here: python3 remove.py [--purge] [--yes] [--receipt PATH] [--dry-run]

Goes by the receipt alone, with nothing but Python's standard library (3.9 or later), so that it also works where an
installation stopped half-way or the launcher does not start any more. What is gone already is passed over: it can be
run again after it stopped anywhere. The receipt goes last.

  --purge    the Docker engine too, if we brought it and nothing foreign is in it
  --yes      do not ask
  --dry-run  say what would be removed, and change nothing
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # a dry run leaves no file
# All of them now: Python itself may be among the packages that go.
from hands import Hands  # noqa: E402
from remove_engine import (  # noqa: E402
    by_hand,
    engine_answers,
    foreign_things,
    own_filters,
    own_images,
    remove_engine,
    remove_engine_leavings,
    remove_objects,
)
from remove_files import (  # noqa: E402
    OWN_NAMES,
    forget_units,
    remove_cgroups,
    remove_files,
    remove_folder,
    remove_mounts,
    remove_subids,
    remove_symlinks,
    remove_units,
    remove_users,
)
from remove_packages import installed, remove_packages  # noqa: E402
from remove_rules import remove_walls  # noqa: E402

RECEIPT = Path("/var/lib/dockercomp/receipt.json")
LOCK = Path("/run/dockercomp-receipt.lock")
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


class NoReceipt(Exception):
    """The receipt cannot be used; one sentence."""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 all gone, 1 something could not be removed, 2 nothing was changed."""
    options = _options(arguments)
    if os.geteuid() != 0 and not options.dry_run:
        return _refuse("Removing needs root: sudo python3 remove.py ...")
    try:
        receipt = read_receipt(options.receipt)
    except NoReceipt as error:
        return _refuse(str(error))
    if receipt is None:
        print(f"Nothing to remove: there is no receipt at {options.receipt}.")
        return 0
    if not options.yes and not options.dry_run and not _consent(receipt, purge=options.purge):
        return _refuse("Nothing was changed.")
    hands = Hands(dry=options.dry_run)
    with LOCK.open("w") if not options.dry_run else open(os.devnull) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if options.dry_run else fcntl.LOCK_EX)
        Removal(hands, receipt, options.receipt, purge=options.purge).run()
    print(hands.report() or "Nothing was left to remove.")
    return 1 if hands.failed else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--purge", "--yes", "--dry-run"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--receipt", type=Path, default=RECEIPT, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def read_receipt(path: Path) -> dict[str, Any] | None:
    """The receipt with every list that one has, None when there is none; raises NoReceipt."""
    try:
        held = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NoReceipt(f"The receipt {path} cannot be read: {error}.") from error
    if not isinstance(held, dict) or held.get("version") != 1:
        raise NoReceipt(f"The receipt {path} is of a version that this program does not know.")
    docker = {"installed_by_us": False, "packages": [], "repository_files": [], **(held.get("docker") or {})}
    return {"prefix": None, **{name: [] for name in LISTS}, **held, "docker": docker}


def _consent(receipt: dict[str, Any], *, purge: bool) -> bool:
    docker = receipt["docker"]["installed_by_us"]
    engine = "the Docker engine that it brought, " if docker and purge else ""
    print(
        f"This removes dockercomp, its containers, images and results not yet delivered, {engine}and its user."
    )
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(b"Go on? [y/N] ")
            return terminal.readline().strip().lower() in (b"y", b"yes")
    except OSError:
        print("There is no terminal to ask at: say --yes if you mean it.", file=sys.stderr)
        return False


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


class Removal:
    """The order of things. Each part passes over what is gone; one that fails does not keep the others."""

    def __init__(self, hands: Hands, receipt: dict[str, Any], path: Path, *, purge: bool) -> None:
        self._hands, self._receipt, self._path = hands, receipt, path
        self._home = path.parent
        self._docker = receipt["docker"]
        self._purge = purge
        self._engine_goes = False
        self._staying: set[str] = set()  # files of ours without which an engine that stays does not work

    def run(self) -> None:
        """Remove everything; what happened is in the hands' account."""
        for part in (
            self._units,
            self._objects,
            self._walls,
            self._mounts,
            self._decide_on_engine,
            self._files,
            self._packages,
            self._users,
            self._folders,
        ):
            self._attempt(part)
        if not self._hands.failed and not self._hands.dry:
            self._the_last()

    def _attempt(self, part: Callable[[], None]) -> None:
        try:
            part()
        except OSError as error:
            self._hands.fail(f"{error.strerror or error}: {error.filename or 'no file'}.")

    def _units(self) -> None:
        remove_units(self._hands, self._receipt["units"])

    def _objects(self) -> None:
        if engine_answers(self._hands):
            filters = own_filters(self._home, self._instances())
            images = own_images(self._receipt, self._home)
            remove_objects(self._hands, filters, self._receipt["networks"], images)

    def _instances(self) -> list[str]:
        return ["default", *sorted(one.name for one in Path("/etc/dockercomp/instances").glob("*"))]

    def _walls(self) -> None:
        remove_walls(self._hands)

    def _mounts(self) -> None:
        remove_mounts(self._hands, self._receipt["mounts"])
        remove_cgroups(self._hands)

    def _decide_on_engine(self) -> None:
        """Whether Docker goes: only if we brought it, this is a purge, and nothing foreign is in it."""
        if not self._docker["installed_by_us"]:
            return
        foreign = foreign_things(self._hands)
        if self._purge and not foreign:
            remove_engine(self._hands, self._docker)
            self._engine_goes = True
        elif self._purge:
            self._hands.leave(
                f"Docker holds {', '.join(foreign)} of others. By hand: {by_hand(self._docker)}"
            )
        else:
            self._hands.leave(
                f"Docker, which we brought (--purge removes it). By hand: {by_hand(self._docker)}"
            )

    def _files(self) -> None:
        drop_ins = [name for name in self._receipt["files"] if "/docker.service.d/" in name]
        if self._docker["installed_by_us"] and not self._engine_goes:
            self._staying = {*self._docker["repository_files"], *drop_ins, *self._named_in(drop_ins)}
            if self._staying:
                self._hands.leave(f"Docker's settings of ours: {', '.join(sorted(self._staying))}.")
        remove_files(self._hands, [name for name in self._receipt["files"] if name not in self._staying])
        remove_symlinks(self._hands, self._receipt["symlinks"], str(self._receipt["prefix"]))
        forget_units(self._hands, self._receipt["units"])

    def _named_in(self, drop_ins: Sequence[str]) -> list[str]:
        """Our files that an engine's drop-in names: it does not work without them."""
        texts = [Path(name).read_text() for name in drop_ins if Path(name).is_file()]
        return [name for name in self._receipt["files"] if any(name in text for text in texts)]

    def _packages(self) -> None:
        listed = [*self._receipt["packages"], *self._unfinished()]
        dockers = set(self._docker["packages"])
        if self._engine_goes:
            remove_packages(self._hands, {*listed, *dockers})
            remove_engine_leavings(self._hands)
        else:
            remove_packages(self._hands, [name for name in listed if name not in dockers])

    def _unfinished(self) -> list[str]:
        """What a package step added that was cut off before it could say so."""
        before = self._receipt.get("packages_before")
        return sorted(installed(self._hands) - set(before)) if before is not None else []

    def _users(self) -> None:
        remove_subids(self._hands, self._receipt["subid"])
        remove_files(
            self._hands, [name for name in self._receipt["files"] if name in ("/etc/subuid", "/etc/subgid")]
        )
        remove_users(self._hands, self._receipt["users"], self._receipt["groups"])

    def _folders(self) -> None:
        """What is ours in each folder; and the folder, if it was not there before us."""
        own = {
            **OWN_NAMES,
            str(self._home): OWN_NAMES["home"],
            str(self._receipt["prefix"]): OWN_NAMES["prefix"],
        }
        ours = {folder for folder in own if folder.startswith("/")}
        for folder in sorted({*self._receipt["folders"], *ours}, key=len, reverse=True):
            listed = folder in self._receipt["folders"]
            keep = [self._path.name] if folder == str(self._home) else []
            names = own.get(folder, "").split()
            remove_folder(self._hands, folder, names, keep=[*keep, *self._staying_in(folder)], itself=listed)

    def _staying_in(self, folder: str) -> list[str]:
        return [Path(name).name for name in self._staying if str(Path(name).parent) == folder]

    def _the_last(self) -> None:
        """The receipt itself, and the folder that it lies in."""
        self._path.unlink()
        if not os.path.ismount(self._home) and not os.listdir(self._home):
            self._home.rmdir()
        LOCK.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
