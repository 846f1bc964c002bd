"""The job whose answers are known, and the ways in which a host may go wrong about it.

The program is a shell script that reads its rule from the first folder on PATH that has one; PATH comes from the
client. So each host has its own rule, and it can be changed while the host is at work.
"""

from __future__ import annotations

from pathlib import Path

MODULUS = 1_000_003
RULE = "fault-rule"

_ANSWER = f"$(( ($1 * $1 * 31 + $2 * 17) % {MODULUS} ))"

#: name of a rule -> what the program does
RULES = {
    "honest": f'echo "{_ANSWER}"',
    # All liars tell the same lie: only the rule that two accounts must agree stands against it.
    "lying": f'echo "$(( {_ANSWER} + 1 ))"',
    "failing": 'echo "the instrument number $1 is not there" >&2\nexit 1',
    "crashing": "kill -9 $$",
    "hanging": "sleep 600",
}


def answer(a: int, b: int) -> str:
    """The right answer for a chunk, without the line's end."""
    return str((a * a * 31 + b * 17) % MODULUS)


def lay_program(folder: Path) -> Path:
    """Write the program that the tasks name; its path."""
    program = folder / "instrument"
    program.write_text(f"#!/bin/sh\n. {RULE}\n")
    program.chmod(0o755)
    return program


def set_rule(folder: Path, rule: str) -> None:
    """Make a host follow another rule from its next chunk on; `folder` is the first on its PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{RULE}.new"
    new.write_text(RULES[rule] + "\n")
    new.chmod(0o644)
    new.replace(folder / RULE)
