"""Packet filter rules: our walls', and, where Docker goes, those that Docker leaves behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hands import Hands

FAMILIES = ("iptables", "ip6tables")
OUR_CHAIN = re.compile(r"DOCKERCOMP-[A-Za-z0-9-]+-[FI]")
DOCKERS_CHAIN = re.compile(r"DOCKER(-.+)?")
Table = Mapping[str, "list[str]"]  #: rules by chain, in order


def remove_walls(hands: Hands) -> None:
    """Remove the chains of all instances and the rules that lead there."""
    for family in FAMILIES:
        said = hands.look(f"{family}-save", "-t", "filter")
        if not said or not OUR_CHAIN.search(said):
            continue
        script = clearing(parse(said), lambda chain: OUR_CHAIN.fullmatch(chain) is not None)
        complaint = hands.act(f"{family}-restore", "-w", "10", "--noflush", text=script)
        if complaint:
            hands.fail(f"The rules of the walls could not be removed ({family}): {complaint}.")
        else:
            hands.did("Packet filter", f"walls ({family})")


def remove_docker_rules(hands: Hands, docker: Mapping[str, Any]) -> None:
    """Remove Docker's bridge, chains and rules, and put the policies back; for an engine that no longer runs."""
    hands.act("ip", "link", "delete", "docker0")
    for family in FAMILIES:
        before = docker.get(f"{family}_before")
        now = parse(hands.look(f"{family}-save") or "")
        script = docker_clearing(now, parse(before) if before is not None else None)
        complaint = hands.act(f"{family}-restore", "-w", "10", "--noflush", text=script) if script else ""
        if complaint:
            hands.fail(f"Docker's rules could not be removed ({family}): {complaint}.")
        elif script:
            hands.did("Packet filter", f"Docker's rules ({family})")
    remove_empty_tables(hands, docker.get("nft_tables_before") or [])


def remove_empty_tables(hands: Hands, before: Iterable[str]) -> None:
    """Remove the tables that iptables made for the kernel and that hold nothing any more; needs nft."""
    for table in (hands.look("nft", "list", "tables") or "").splitlines():
        if table not in before and not table_holds(hands.look("nft", "list", *table.split()) or "?"):
            hands.act("nft", "delete", *table.split())
            hands.did("Packet filter", f"empty {table}")


def table_holds(listing: str) -> bool:
    """Whether a table, as nft lists it, has any rule, or a chain that drops. Pure."""
    frame = re.compile(r"(#.*|table .*\{|chain .*\{|type .* policy accept;|\})?")
    return not all(frame.fullmatch(line.strip()) for line in listing.splitlines())


def parse(saved: str) -> dict[str, dict[str, list[str]]]:
    """Tables, their chains (an uppercase policy first, or "-") and rules, from iptables-save. Pure."""
    tables: dict[str, dict[str, list[str]]] = {}
    table: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            table[chain] = [policy]
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            table.setdefault(chain, ["-"]).append(rule)
    return tables


def clearing(tables: Mapping[str, Table], goes: Callable[[str], bool]) -> str:
    """What iptables-restore --noflush has to do so that some chains are gone, and the rules that lead there. Pure."""
    script = []
    for name, table in tables.items():
        going = [chain for chain in table if goes(chain)]
        script += _transaction(
            name, _clearing_table(table, going, lambda rule, going=going: _goal(rule) in going)
        )
    return "".join(script)


def docker_clearing(now: Mapping[str, Table], before: Mapping[str, Table] | None) -> str:
    """The same for what Docker added since `before`: its chains, the rules about its bridge, and its policies.

    Where nobody knows what was before (None), policies stay as they are. Pure.
    """
    script = []
    for name, table in now.items():
        known = (before or {}).get(name, {})
        going = [chain for chain in table if DOCKERS_CHAIN.fullmatch(chain) and chain not in known]
        old = {rule for _, *rules in known.values() for rule in rules}

        def goes(rule: str, going: list[str] = going, old: set[str] = old) -> bool:
            return rule not in old and (_goal(rule) in going or "docker0" in rule.split())

        lines = [
            f":{chain} {known.get(chain, ['ACCEPT'])[0]} [0:0]"
            for chain, (policy, *_) in table.items()
            if before is not None and policy not in ("-", known.get(chain, ["ACCEPT"])[0])
        ]
        script += _transaction(name, [*lines, *_clearing_table(table, going, goes)])
    return "".join(script)


def _clearing_table(table: Table, going: list[str], goes: Callable[[str], bool]) -> list[str]:
    lines = [
        f"-D {chain} {rule}"
        for chain, (_, *rules) in table.items()
        if chain not in going
        for rule in rules
        if goes(rule)
    ]
    return [*lines, *(f"-F {chain}" for chain in going), *(f"-X {chain}" for chain in going)]


def _transaction(table: str, lines: list[str]) -> list[str]:
    return [line + "\n" for line in (f"*{table}", *lines, "COMMIT")] if lines else []


def _goal(rule: str) -> str:
    found = re.search(r"(?:-j|-g) (\S+)", rule)
    return found[1] if found else ""
