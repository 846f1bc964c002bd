"""Packages that we installed and nothing else needs, taken away by the system's package manager."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable

from hands import Hands

APT = ("apt-get", "-q", "-y", "-o", "APT::Get::AutomaticRemove=0", "-o", "DPkg::Lock::Timeout=120")
QUIET = ("env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")


def remove_packages(hands: Hands, packages: Iterable[str]) -> None:
    """Remove those of the packages that take nothing along which is not among them; the others are named and stay."""
    wanted = sorted(set(packages) & installed(hands))
    if not wanted:
        return
    taken_with = _taken_with_apt(hands) if shutil.which("apt-get") else _taken_with_rpm(hands)
    going = removable(wanted, taken_with)
    staying = sorted(set(wanted) - set(going))
    if staying:
        hands.leave(f"These packages came with us and are needed by others now: {', '.join(staying)}.")
    if not going:
        return
    complaint = _purge(hands, going)
    if complaint:
        hands.fail(f"Packages could not be removed: {complaint}.")
        return
    for name in going:
        hands.did("Packages", name)


def removable(wanted: list[str], taken_with: Callable[[list[str]], set[str]]) -> list[str]:
    """The packages that can go without taking others along. `taken_with` says what goes when these go. Pure."""
    if taken_with(wanted) <= set(wanted):
        return wanted
    # One by one: what takes only ours along goes, and what it takes along does then, too.
    return [name for name in wanted if taken_with([name]) <= set(wanted)]


def installed(hands: Hands) -> set[str]:
    """Names of all packages that are installed, or whose settings are still here."""
    said = hands.look("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n")
    if said is not None:
        return {line.split()[1] for line in said.splitlines() if line[1:2] in "iHcUFWt"}
    return set((hands.look("rpm", "-qa", "--qf", "%{NAME}\n") or "").split())


def _taken_with_apt(hands: Hands) -> Callable[[list[str]], set[str]]:
    def taken_with(names: list[str]) -> set[str]:
        said = hands.look(*QUIET, *APT, "-s", "purge", *names, limit_s=120)
        # Not to be told is not to be allowed.
        return taken_by_apt(said) if said is not None else {"what apt-get does not say"}

    return taken_with


def taken_by_apt(said: str) -> set[str]:
    """The packages that a simulated purge would take. Pure."""
    return set(re.findall(r"^(?:Purg|Remv) ([^\s:]+)", said, re.MULTILINE))


def _taken_with_rpm(hands: Hands) -> Callable[[list[str]], set[str]]:
    def taken_with(names: list[str]) -> set[str]:
        going: set[str] = set()
        more = set(names)
        while more:
            going |= more
            more = needing_by_rpm(hands.heard("rpm", "--erase", "--test", *sorted(going))) - going
        return going

    return taken_with


def needing_by_rpm(said: str) -> set[str]:
    """The packages because of which rpm would not erase others. Pure."""
    return {found.rsplit("-", 2)[0] for found in re.findall(r"is needed by \(installed\) (\S+)", said)}


def _purge(hands: Hands, names: list[str]) -> str:
    if shutil.which("apt-get"):
        complaint = hands.act(*QUIET, *APT, "purge", *names, limit_s=900)
        if "dpkg was interrupted" not in complaint:
            return complaint
        hands.act(
            *QUIET, "dpkg", "--configure", "-a", limit_s=900
        )  # as it asks for; the purge says how that went
        return hands.act(*QUIET, *APT, "purge", *names, limit_s=900)
    return hands.act("rpm", "--erase", *names, limit_s=900)
