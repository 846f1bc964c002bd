"""The best settings in a table of results, and whether it says what a run in one process says.

python3 best.py results.csv [--against reference.csv] [--top 10]

results.csv is what `dockercomp results` wrote, reference.csv what `fit.py --grid` wrote. Exit code 1 when they differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from make_grid import COLUMNS

Table = dict[str, tuple[float, float]]  #: setting, as text -> mean and standard deviation of its accuracy


class Unfinished(Exception):
    """A table with a row that has no answer; the message is one sentence."""


def read_results(lines: Iterable[str]) -> Table:
    """The figures in an exported table; raises Unfinished."""
    table = {}
    for row in csv.DictReader(lines):
        if not row["answer"]:
            raise Unfinished(f"Row {row['row']} has no answer: it is {row['state']}.")
        answer = json.loads(row["answer"])
        table[setting(row)] = (answer["accuracy_mean"], answer["accuracy_std"])
    return table


def read_reference(lines: Iterable[str]) -> Table:
    """The figures in a table that fit.py wrote."""
    return {
        setting(row): (float(row["accuracy_mean"]), float(row["accuracy_std"]))
        for row in csv.DictReader(lines)
    }


def setting(row: dict[str, str]) -> str:
    """The fields that make up a row's setting, as in "svc  C=3 gamma=0.1"."""
    model, *others = COLUMNS
    return f"{row[model]:<9}" + " ".join(f"{name}={row[name]}" for name in others if row[name])


def differences(results: Table, reference: Table) -> list[str]:
    """Settings that only one table has, or whose figures are not exactly the same."""
    every = dict.fromkeys([*reference, *results])
    return [name for name in every if results.get(name) != reference.get(name)]


def show_best(table: Table, count: int) -> None:
    """Print the settings with the highest accuracy; among equals the first of the table comes first."""
    print("accuracy  +/-    setting")
    for name in sorted(table, key=lambda name: -table[name][0])[:count]:
        mean, deviation = table[name]
        print(f"{mean:.4f}  {deviation:.4f}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Show the best settings of a table of results.")
    parser.add_argument("results", type=Path, help="what `dockercomp results` wrote")
    parser.add_argument("--against", type=Path, metavar="FILE", help="what `fit.py --grid` wrote")
    parser.add_argument("--top", type=int, default=10, help="how many to show (default: %(default)s)")
    options = parser.parse_args()
    try:
        table = read_results(options.results.read_text().splitlines())
    except Unfinished as error:
        print(error, file=sys.stderr)
        return 1
    show_best(table, options.top)
    if options.against is None:
        return 0
    different = differences(table, read_reference(options.against.read_text().splitlines()))
    print(f"{len(table)} settings, {len(different)} differ from {options.against}.")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
