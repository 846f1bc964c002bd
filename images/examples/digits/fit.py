"""Cross-validate classifiers on the 8x8 handwritten digits that come with scikit-learn.

As a job (python3 fit.py): one setting as JSON on stdin, its accuracy as one line of JSON on stdout. A setting that
cannot be tried is bad data: exit 65.

In one process (python3 fit.py --grid FILE, or - for stdin): every setting of a CSV of make_grid.py, as a CSV with
two columns more on stdout, and the best setting on stderr. Both go through evaluate(), so both answer the same.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

BAD_DATA = 65  #: the exit code that says: trying again elsewhere will not help
EVERY = 3  #: of the 1,797 images every third is used: a setting is to take a fraction of a second
FOLDS = 5
ANSWER = ("accuracy_mean", "accuracy_std")

Setting = Mapping[str, str]


class BadSetting(Exception):
    """A setting that cannot be tried; the message is one sentence."""


def evaluate(setting: Setting) -> dict[str, float]:
    """Mean and standard deviation of the accuracy (0 to 1) over the folds; raises BadSetting.

    The same setting always gives the same figures: folds and trees are seeded, and one thread does the sums.
    """
    model = make_model(setting)
    # Importing scikit-learn takes longer than fitting, so that only what is used is imported, when it is used.
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    images, labels = digits()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    try:
        scores = cross_val_score(model, images, labels, cv=folds, error_score="raise")
    except (ValueError, OverflowError) as error:  # scikit-learn checks values (C > 0, say) only when it fits
        raise BadSetting(f"{setting.get('model')}: {str(error).splitlines()[0]}") from error
    return dict(zip(ANSWER, (float(scores.mean()), float(scores.std())), strict=True))


@cache
def digits() -> tuple[Any, Any]:
    """The images as rows of 64 grey values from 0 to 1, and the digits they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images[::EVERY] / 16.0, labels[::EVERY]


def make_model(setting: Setting) -> Any:
    """The classifier that `setting` describes, not fitted yet; raises BadSetting."""
    name = setting.get("model")
    make = MODELS.get(name) if isinstance(name, str) else None
    if make is None:
        raise BadSetting(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return make(setting)


def svc(setting: Setting) -> Any:
    """A support vector machine with a Gaussian kernel."""
    cost, gamma = number(setting, "C"), number(setting, "gamma")
    from sklearn.svm import SVC

    return SVC(C=cost, gamma=gamma)


def knn(setting: Setting) -> Any:
    """A vote of the nearest images."""
    neighbors, power = whole(setting, "neighbors"), whole(setting, "p")
    weights = text(setting, "weights")
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(neighbors, weights=weights, p=power, algorithm="brute")


def logistic(setting: Setting) -> Any:
    """Logistic regression."""
    cost = number(setting, "C")
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=cost, max_iter=1000, tol=1e-3)


def tree(setting: Setting) -> Any:
    """A decision tree."""
    depth, leaf = whole(setting, "depth"), whole(setting, "leaf")
    criterion = text(setting, "criterion")
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(criterion=criterion, max_depth=depth, min_samples_leaf=leaf, random_state=0)


MODELS: Mapping[str, Callable[[Setting], Any]] = {
    "svc": svc,
    "knn": knn,
    "logistic": logistic,
    "tree": tree,
}


def text(setting: Setting, name: str) -> str:
    """A value of the setting; raises BadSetting where it is empty or missing."""
    value = setting.get(name)
    if not isinstance(value, str) or not value:
        raise BadSetting(f"{setting['model']} needs a value for {name}")
    return value


def number(setting: Setting, name: str) -> float:
    """A value of the setting as a number; raises BadSetting."""
    try:
        return float(text(setting, name))
    except ValueError:
        raise BadSetting(f"{name} must be a number, not {setting[name]!r}") from None


def whole(setting: Setting, name: str) -> int:
    """A value of the setting as a whole number; raises BadSetting."""
    try:
        return int(text(setting, name))
    except ValueError:
        raise BadSetting(f"{name} must be a whole number, not {setting[name]!r}") from None


def one_chunk() -> None:
    """Answer the setting on stdin; raises BadSetting."""
    # Nearly all of this process is importing scikit-learn. Looking for garbage meanwhile, and once more at the end,
    # finds next to nothing and takes a third of the time.
    gc.disable()
    try:
        setting = json.load(sys.stdin)
    except ValueError as error:
        raise BadSetting(f"the setting is not JSON ({error})") from None
    if not isinstance(setting, dict):
        raise BadSetting("the setting is not an object with the fields of one row")
    print(json.dumps(evaluate(setting)))
    gc.freeze()


def whole_grid(lines: Iterable[str]) -> None:
    """Answer every row of a CSV, in its order; raises BadSetting."""
    grid = csv.DictReader(lines)
    table = csv.DictWriter(sys.stdout, [*(grid.fieldnames or ()), *ANSWER], lineterminator="\n")
    table.writeheader()
    best: dict[str, Any] = {}
    for setting in grid:
        row = {**setting, **evaluate(setting)}
        table.writerow(row)
        if not best or row["accuracy_mean"] > best["accuracy_mean"]:
            best = row
    shown = ", ".join(f"{name}={value}" for name, value in best.items() if value != "")
    print(f"best: {shown}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description="Cross-validate one setting (stdin), or a grid of them.")
    parser.add_argument("--grid", metavar="FILE", help="a CSV of settings; - for stdin")
    grid = parser.parse_args().grid
    try:
        if grid is None:
            one_chunk()
        elif grid == "-":
            whole_grid(sys.stdin)
        else:
            with open(grid, newline="") as lines:  # noqa: PTH123  # nothing else here needs pathlib
                whole_grid(lines)
    except BadSetting as error:
        print(error, file=sys.stderr)
        return BAD_DATA
    return 0


if __name__ == "__main__":
    sys.exit(main())
