"""Write the settings to try, one a row, as CSV on stdout: python3 make_grid.py > grid.csv

A setting names a model and gives what that model takes; the other columns stay empty.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import product

COLUMNS = ("model", "C", "gamma", "neighbors", "weights", "p", "depth", "criterion", "leaf")

# Text, so that a setting reads the same here, in the table of results and in the picture.
C_OF_SVC = ("0.03", "0.1", "0.3", "1", "3", "10", "30", "100", "300")
GAMMA = ("0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10")
C_OF_LOGISTIC = ("0.01", "0.03", "0.1", "0.3", "1", "3", "10", "30", "100")
NEIGHBORS = ("1", "2", "3", "4", "5", "6", "7", "8", "10", "12", "15", "20")
WEIGHTS, POWER = ("uniform", "distance"), ("1", "2")
DEPTH = ("4", "6", "8", "10", "12", "16")
CRITERION, LEAF = ("gini", "entropy"), ("1", "2", "4")


def settings() -> Iterator[dict[str, str]]:
    """The settings, in the order of the table."""
    for cost, gamma in product(C_OF_SVC, GAMMA):
        yield {"model": "svc", "C": cost, "gamma": gamma}
    for neighbors, weights, power in product(NEIGHBORS, WEIGHTS, POWER):
        yield {"model": "knn", "neighbors": neighbors, "weights": weights, "p": power}
    for cost in C_OF_LOGISTIC:
        yield {"model": "logistic", "C": cost}
    for depth, criterion, leaf in product(DEPTH, CRITERION, LEAF):
        yield {"model": "tree", "depth": depth, "criterion": criterion, "leaf": leaf}


def main() -> None:
    table = csv.DictWriter(sys.stdout, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(settings())


if __name__ == "__main__":
    main()
