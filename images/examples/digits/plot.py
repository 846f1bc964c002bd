"""Draw the accuracy of the support vector machines over C and gamma: python3 plot.py results.csv digits.png

Needs matplotlib (pip install matplotlib), which nothing else here does.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # only after the choice of a backend that needs no screen


def accuracies(path: Path) -> dict[tuple[str, str], float]:
    """(C, gamma), as written in the grid -> mean accuracy."""
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["model"] == "svc"]
    return {(row["C"], row["gamma"]): json.loads(row["answer"])["accuracy_mean"] for row in rows}


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    table = accuracies(source)
    costs = list(dict.fromkeys(cost for cost, _ in table))
    gammas = list(dict.fromkeys(gamma for _, gamma in table))
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    image = axes.imshow([[table[cost, gamma] for gamma in gammas] for cost in costs],
                        cmap="viridis", vmin=0.5, vmax=1.0, aspect="auto", origin="lower")  # fmt: skip
    for (cost, gamma), value in table.items():
        axes.text(gammas.index(gamma), costs.index(cost), f"{100 * value:.0f}", ha="center", va="center",
                  fontsize=8, color="black" if value > 0.8 else "white")  # fmt: skip
    axes.set(xticks=range(len(gammas)), xticklabels=gammas, xlabel="gamma",
             yticks=range(len(costs)), yticklabels=costs, ylabel="C",
             title="Support vector machines on digits: accuracy in %, 5 folds")  # fmt: skip
    figure.colorbar(image, label="mean accuracy", extend="min")
    figure.savefig(target, dpi=90, metadata={"Software": None}, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
